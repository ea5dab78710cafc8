//! Host model of the machine below ring-server-core.
