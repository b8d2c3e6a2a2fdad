package login

// Settle waits for the refreshes that run.
func (l *Login) Settle() { l.memory.work.Wait() }
