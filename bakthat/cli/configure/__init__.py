"""Ask for the settings of a profile, or take them from options, and write them."""
