"""One script for each public dataset: fetch, verify, convert to the folder that regkit's loader takes."""
