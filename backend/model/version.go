package model

// Version names this build; the linker sets it (see the Makefile).
var Version = "devel"
