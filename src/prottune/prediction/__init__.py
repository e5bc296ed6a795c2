"""A FASTA file of any size -> a table of locations, one row a protein, in the order of the file.

`stage` answers a file on one machine and goes on after a kill; `sharding` cuts a file so that many machines
answer it at once, and joins what they answered. docs/prediction.md has the columns and the rules.
"""
