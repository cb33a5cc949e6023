"""What is done with the library: register scans, examine files, report, compare methods, keep a leaderboard."""
