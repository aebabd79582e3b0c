"""Write the shell script that restores a backup without bakthat."""
