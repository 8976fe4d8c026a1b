"""The processes and files of an attempt: started, watched, found again, ended."""
