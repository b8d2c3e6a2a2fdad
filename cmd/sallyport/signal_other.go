//go:build !unix

package main

import "syscall"

// reopenSignal stands for SIGUSR1, which does not exist here. SIGHUP reloads the
// configuration, so no signal reopens the audit file.
const reopenSignal = syscall.SIGHUP
