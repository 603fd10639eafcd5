// How high the rows of a long list are, in lines, and where each of them begins. Pure.
//
// Sums are made up to where they are needed, and again from where a row changed: for a hundred
// thousand rows that is a fraction of a millisecond, so no tree is needed.

export class Heights {
  #lines = []; // of each row
  #ends = []; // the sum up to and with each row
  #summed = 0; // how many sums are right

  get length() {
    return this.#lines.length;
  }

  get total() {
    return this.top(this.#lines.length);
  }

  append(lines) {
    for (const each of lines) this.#lines.push(each);
  }

  prepend(lines) {
    this.#lines = [...lines, ...this.#lines];
    this.#summed = 0;
  }

  // Forget the first rows.
  drop(rows) {
    this.#lines.splice(0, rows);
    this.#summed = 0;
  }

  clear() {
    this.#lines = [];
    this.#summed = 0;
  }

  get(row) {
    return this.#lines[row];
  }

  set(row, lines) {
    if (this.#lines[row] === lines) return;
    this.#lines[row] = lines;
    this.#summed = Math.min(this.#summed, row);
  }

  // The lines above a row.
  top(row) {
    if (row <= 0) return 0;
    for (let at = this.#summed; at < row; at += 1) {
      this.#ends[at] = (at ? this.#ends[at - 1] : 0) + this.#lines[at];
    }
    this.#summed = Math.max(this.#summed, row);
    return this.#ends[row - 1];
  }

  // The row in which a line is; the nearest if there is none.
  at(line) {
    let low = 0;
    let high = this.#lines.length - 1;
    this.top(this.#lines.length);
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#ends[middle] > line) high = middle;
      else low = middle + 1;
    }
    return Math.max(0, low);
  }
}

// How many lines a text takes up in so many columns.
export const linesOf = (length, columns) => Math.max(1, Math.ceil(length / Math.max(1, columns)));
