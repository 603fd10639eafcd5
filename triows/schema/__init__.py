"""The protocol for machines: a JSON Schema of every message, and an AsyncAPI document."""

from triows.schema.asyncapi import asyncapi as asyncapi
from triows.schema.jsonschema import json_schema as json_schema
