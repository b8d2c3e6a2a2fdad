//go:build unix

package main

import "syscall"

// reopenSignal asks for the audit file to be opened anew.
const reopenSignal = syscall.SIGUSR1
