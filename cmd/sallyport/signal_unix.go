//go:build unix

package main

import "syscall"

// reopenSignal makes the gateway reopen the audit file.
const reopenSignal = syscall.SIGUSR1
