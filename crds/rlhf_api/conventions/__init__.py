"""Spellings that several parts must agree on: names of logs, mounted files, URLs, quantities, one text for one value."""
