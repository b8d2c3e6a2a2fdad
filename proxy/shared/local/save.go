package local

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// maxState is the maximum size of a state file in bytes: about fifty million claims.
const maxState = 1 << 30

// Save writes the live claims to the state file for the next process and stops the store: later
// claims are refused with [shared.ErrStopped]. Then it unlocks the file. Call it for a planned
// stop, after the last exchange. It may be repeated after an error. Without a state file or its
// lock, it writes nothing.
func (r *Replay) Save() error {
	r.stopped.Store(true)
	r.beginning.Lock()
	defer r.beginning.Unlock()
	if r.lock == nil {
		return nil
	}
	if err := r.relock(); err != nil {
		return fmt.Errorf("writing the state of the replay store: %w", err)
	}
	if _, err := os.Lstat(r.file + MarkEnding); !errors.Is(err, fs.ErrNotExist) {
		_ = r.lock.Close()
		r.lock = nil
		return nil // another process accepted signatures that this one does not know
	}
	now := r.now()
	if r.unclean.Load() {
		r.raiseFloor(now, now.Sub(r.start))
	}
	r.sweep(now.Unix())
	if err := writeAtomic(r.file, appendState(nil, r.state())); err != nil {
		return fmt.Errorf("writing the state of the replay store: %w", err)
	}
	_ = r.lock.Close() // this unlocks it; the file stays, so that all processes lock the same one
	r.lock = nil
	return nil
}

// touchMark creates the mark of a process that uses a state file without its lock, unless it
// exists.
func touchMark(name string) error {
	if _, err := os.Lstat(name); err == nil {
		return nil
	}
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(f.Close(), syncFolder(name))
}

// removeMark removes the mark and reports whether there was one.
func removeMark(name string) (found bool, err error) {
	err = os.Remove(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil:
		return false, err
	}
	return true, syncFolder(name)
}

// relock takes the lock again if somebody removed the lock file. Another process may have
// locked a new one; the state file then belongs to that process.
func (r *Replay) relock() error {
	locked, err := r.lock.Stat()
	if err != nil {
		return err
	}
	if named, err := os.Lstat(r.lock.Name()); err == nil && os.SameFile(locked, named) {
		return nil
	}
	lock, err := acquire(r.lock.Name())
	if err != nil {
		return err
	}
	_ = r.lock.Close() // the removed file, which nobody can find
	r.lock = lock
	return nil
}

// state copies the store's content. No more claims are made.
func (r *Replay) state() *state {
	s := new(state)
	for i := range r.shards {
		sh := &r.shards[i]
		sh.mu.Lock()
		for _, b := range sh.buckets {
			k := savedBucket{from: b.from, to: b.to, last: b.last, end: b.end}
			k.records = make([]byte, 0, len(b.claims)*recordSize)
			for claim, number := range b.claims {
				k.records = binary.BigEndian.AppendUint32(k.records, number)
				k.records = append(k.records, claim[:]...)
			}
			s.buckets = append(s.buckets, k)
		}
		sh.mu.Unlock()
	}
	for _, k := range r.keys.Load().all {
		s.keys = append(s.keys, k.id)
	}
	s.floor = r.floor.Load() // last, so that it covers everything dropped meanwhile
	return s
}

// restore loads a state. The caller has sole access to r. If there are more claims than the
// limits allow, new ones are refused until enough have expired.
func (r *Replay) restore(s *state) {
	r.floor.Store(s.floor)
	numbered := make([]*key, len(s.keys))
	for i, id := range s.keys {
		numbered[i] = r.key(id)
	}
	for _, from := range s.buckets {
		for rest := from.records; len(rest) > 0; rest = rest[recordSize:] {
			k := numbered[binary.BigEndian.Uint32(rest)]
			claim := [16]byte(rest[4:recordSize])
			b := r.shard(&claim).bucket(from.from, from.to)
			if _, double := b.claims[claim]; double {
				continue
			}
			b.claims[claim] = k.number
			b.last = max(b.last, from.last)
			b.end = max(b.end, from.end)
			k.live.Add(1)
			r.live.Add(1)
		}
	}
}

// readAndRemove reads a state file and removes it. It does not touch other files.
func readAndRemove(name string) (b []byte, found bool, err error) {
	if b, err = read(name); errors.Is(err, fs.ErrNotExist) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	if err := os.Remove(name); err != nil {
		return nil, false, err
	}
	return b, true, syncFolder(name)
}

func read(name string) ([]byte, error) {
	// Opening a named pipe would wait for its writer.
	info, err := os.Lstat(name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", name)
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err = f.Stat(); err != nil {
		return nil, err
	}
	if info.Mode().Perm()&0o002 != 0 {
		return nil, fmt.Errorf("%s can be written by every user of this machine; chmod o-w %s", name, name)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxState+1))
	if err != nil {
		return nil, err
	}
	if !ours(b) || len(b) > maxState {
		return nil, fmt.Errorf("%s is not a state file; name another file, or empty it if no signature was used before", name)
	}
	return b, nil
}

// CheckFile returns an error if [Replay.Begin] would refuse a state file or not trust it. It changes
// nothing. A missing file is no error.
func CheckFile(name string) error {
	b, err := read(name)
	switch dir := filepath.Dir(name); {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err == nil && othersMayWrite(dir, len(b) == 0):
		return fmt.Errorf("others may write in its folder, so they could have written it; chmod go-w %s", dir)
	}
	return err
}

// writeAtomic writes a state file atomically.
func writeAtomic(name string, b []byte) error {
	f, err := create(name)
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	if _, err = f.Write(b); err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), name); err != nil {
		return err
	}
	return syncFolder(name)
}

// create makes a temporary file beside the named one.
func create(name string) (*os.File, error) {
	return os.CreateTemp(filepath.Dir(name), ".new-*") // made with mode 0600
}

// othersMayWrite reports whether users other than the owner may create files in a folder, so that
// they could have written the state file. The group counts only if the file is empty: a file with
// claims comes from this program, and Kubernetes lets a group write in a pod's volume.
func othersMayWrite(dir string, empty bool) bool {
	mask := fs.FileMode(0o002)
	if empty {
		mask = 0o022
	}
	info, err := os.Stat(dir)
	return err != nil || info.Mode().Perm()&mask != 0
}

// tryFolder checks at the start that a state file can be written at the stop.
func tryFolder(name string) error {
	f, err := create(name)
	if err != nil {
		return err
	}
	return errors.Join(f.Close(), os.Remove(f.Name()))
}

// syncFolder makes a rename or removal durable.
func syncFolder(name string) error {
	d, err := os.Open(filepath.Dir(name))
	if err != nil {
		return err
	}
	defer d.Close()
	err = d.Sync()
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, errors.ErrUnsupported) {
		return nil // a file system without support for that
	}
	return err
}
