# The default: what applications run on. No debugging, no printing.
include(common)
