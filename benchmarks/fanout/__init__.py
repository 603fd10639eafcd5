"""A model of many nodes over Redis: what fans out, where it queues, and what a dead node costs."""
