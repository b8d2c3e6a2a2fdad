package wire_test

import (
	"context"
	"errors"
	"testing"

	"sallyport/proxy/wire"
)

func TestLife(t *testing.T) {
	gone, later := errors.New("gone"), errors.New("later")
	var l wire.Life
	if l.Err() != nil || l.Cause() != nil || wire.Cause(&l) != nil {
		t.Error("the zero Life has ended")
	}
	called := make(chan string, 4)
	if !l.Notify(func() { called <- "taken back" }) || !l.Notify(nil) {
		t.Error("what is taken back while it goes on is taken back in time")
	}
	l.Notify(func() { called <- "told" })
	done := l.Done()
	l.End(gone)
	l.End(later)
	<-done
	<-l.Done()
	if got := <-called; got != "told" {
		t.Errorf("called %q", got)
	}
	if l.Notify(nil) {
		t.Error("what was called is taken back in time")
	}
	l.Notify(func() { called <- "at once" })
	if got := <-called; got != "at once" {
		t.Errorf("called %q", got)
	}
	if l.Cause() != gone || l.Err() != context.Canceled {
		t.Errorf("cause %v, err %v", l.Cause(), l.Err())
	}
	if ctx, cancel := context.WithCancel(&l); ctx.Err() == nil {
		cancel()
		t.Error("a context of it goes on")
	} else {
		cancel()
	}
	var other wire.Life
	other.End(nil)
	if other.Cause() != context.Canceled {
		t.Errorf("no cause: %v", other.Cause())
	}
}

func TestWatch(t *testing.T) {
	called := make(chan struct{}, 2)
	tell := func() { called <- struct{}{} }
	plain, cancel := context.WithCancel(context.Background())
	var life wire.Life
	for name, c := range map[string]struct {
		ctx context.Context
		end func()
	}{"a context": {plain, cancel}, "a life": {&life, func() { life.End(nil) }}} {
		w := wire.Watch(c.ctx, tell)
		if !w.Stop() || !w.Stop() {
			t.Errorf("%s: not taken back in time", name)
		}
		w = wire.Watch(c.ctx, tell)
		c.end()
		<-called
		if w.Stop() {
			t.Errorf("%s: taken back although it was told", name)
		}
	}
	w := wire.Watch(context.Background(), tell)
	if !w.Stop() {
		t.Error("what never ends was told")
	}
}
