"""Which card may run which job, in how much memory and how many seconds. Pure: no clock and no I/O."""
