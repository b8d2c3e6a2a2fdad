//go:build !unix

package main

import "syscall"

// reopenSignal asks for the audit file to be opened anew. There is no SIGUSR1 here, so
// nothing asks.
const reopenSignal = syscall.SIGHUP
