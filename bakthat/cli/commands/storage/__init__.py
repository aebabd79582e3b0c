"""The commands about the storage itself: who may do what there, and what stays."""
