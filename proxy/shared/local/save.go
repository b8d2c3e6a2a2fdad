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

// maxState bounds a state file, in bytes: some fifty million claims.
const maxState = 1 << 30

// Save leaves what lives in the state file, for the next process, and ends the store:
// claims that come later are refused with [shared.ErrStopped]. Then it lets go of the
// file's lock. It is for a planned stop, after the last exchange. After an error it may be
// called again. Without a state file, or without its lock, it leaves nothing.
func (r *Replay) Save() error {
	r.stopped.Store(true)
	r.beginning.Lock()
	defer r.beginning.Unlock()
	if r.lock == nil {
		return nil
	}
	if err := r.relock(); err != nil {
		return fmt.Errorf("leaving the state of the replay store: %w", err)
	}
	if _, err := os.Lstat(r.file + ".unclean"); !errors.Is(err, fs.ErrNotExist) {
		_ = r.lock.Close()
		r.lock = nil
		return nil // another process used signatures of which this one does not know
	}
	now := r.now()
	if r.unclean.Load() {
		r.raiseFloor(now, now.Sub(r.start))
	}
	r.sweep(now.Unix())
	if err := leave(r.file, appendState(nil, r.state())); err != nil {
		return fmt.Errorf("leaving the state of the replay store: %w", err)
	}
	_ = r.lock.Close() // which unlocks it; the file stays, so that nobody locks another of its name
	r.lock = nil
	return nil
}

// touchMark makes the mark of a process that uses a state file without its lock, unless it
// is there.
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

// removeMark removes the mark, and says whether there was one.
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

// relock takes the lock again where the file that is locked is no longer the one of its
// name, because somebody removed it: another process may have locked the new one, and then
// the state file is that one's.
func (r *Replay) relock() error {
	held, err := r.lock.Stat()
	if err != nil {
		return err
	}
	if named, err := os.Lstat(r.lock.Name()); err == nil && os.SameFile(held, named) {
		return nil
	}
	lock, err := acquire(r.lock.Name())
	if err != nil {
		return err
	}
	_ = r.lock.Close() // nobody can find it any more
	r.lock = lock
	return nil
}

// state copies what there is. No claims are made any more.
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
	s.floor = r.floor.Load() // last: what was dropped meanwhile is below it
	return s
}

// restore takes over a state. Nobody else uses r yet. There may be more claims
// than there is room for: then there is none until they are over.
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

// take reads and removes a state file. It leaves alone what is not one.
func take(name string) (b []byte, found bool, err error) {
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
		return nil, fmt.Errorf("%s is not a state file; name another, or empty it if no signature was used before", name)
	}
	return b, nil
}

// CheckFile returns an error if a state file is one that [Replay.Begin] refuses or does not
// believe. It changes nothing; a file that is missing is no error.
func CheckFile(name string) error {
	b, err := read(name)
	switch dir := filepath.Dir(name); {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err == nil && othersMayWrite(dir, len(b) == 0):
		return fmt.Errorf("others may write in its folder, so they could have made it; chmod go-w %s", dir)
	}
	return err
}

// leave writes a state file so that it is there whole or not at all.
func leave(name string, b []byte) error {
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

// create makes a new file beside the one that is named.
func create(name string) (*os.File, error) {
	return os.CreateTemp(filepath.Dir(name), ".new-*") // made with mode 0600
}

// othersMayWrite says whether users other than the owner may make files in a folder, in
// which they could then have left a state file. The group counts for a file that is empty:
// one with claims is this program's, and volumes of Kubernetes give a pod's folder to a
// group of its own.
func othersMayWrite(dir string, empty bool) bool {
	mask := fs.FileMode(0o002)
	if empty {
		mask = 0o022
	}
	info, err := os.Stat(dir)
	return err != nil || info.Mode().Perm()&mask != 0
}

// tryFolder sees at the start that a file can be left at the end.
func tryFolder(name string) error {
	f, err := create(name)
	if err != nil {
		return err
	}
	return errors.Join(f.Close(), os.Remove(f.Name()))
}

// syncFolder makes sure that what was renamed or removed stays so.
func syncFolder(name string) error {
	d, err := os.Open(filepath.Dir(name))
	if err != nil {
		return err
	}
	defer d.Close()
	err = d.Sync()
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, errors.ErrUnsupported) {
		return nil // a file system that has no such thing
	}
	return err
}
