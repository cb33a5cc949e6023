"""What all dataset scripts share, from the ground up (each line imports only from lines above it):

errors       the one error that a user can mend
fetching     downloads that resume and are verified
extraction   archives that stay in their folder
conversion   what papers do to scans beside what regkit.images does
datasets     what a script says of its dataset; files to scans, scans to splits
layout       the prepared folder: splits.json, dataset.json, and the check of all that is in it
preparing    from the sources to the prepared folder, in steps that can be interrupted
command      the command line
"""
