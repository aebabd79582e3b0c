"""The chains of stages that write and read an object."""
