package replay

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
)

// persistence is where a Memory's records are kept besides.
type persistence struct {
	mu        sync.Mutex
	files     []*persistentFile          // those in use, or the last one that was
	journals  atomic.Pointer[[]*journal] // of the files
	suspended bool                       // see Suspend
}

// persistentFile is a file, or stands for having none.
type persistentFile struct {
	*journal // nil: none
	path     string
	users    int
}

// Restored is what Persist found.
type Restored struct {
	// Entries are alive in the store now.
	Entries int
	// Lost is why something that was accepted may not be among them; nil: all is.
	Lost error
}

// Begin begins to record, unless the store has begun before. It knows nothing of
// proofs that were made up to now: see ErrBeforeStart. Until release is called, a
// file that Persist has opened is not needed.
func (m *Memory) Begin() (release func()) {
	p := &m.persistence
	p.mu.Lock()
	defer p.mu.Unlock()
	if !m.hasBegun() {
		now := m.now()
		m.begin(now)
		m.startAt(now.UnixMilli())
	}
	none := p.find("")
	if none == nil {
		none = new(persistentFile)
		p.set(append(slices.Clone(p.files), none))
	}
	return m.use(none)
}

// Persist has everything that the store accepts recorded in a file too, before it
// counts as accepted, until release is called and something else is in use. A
// store that has not begun gets what is in the file, and begins when that did: it
// knows all of before. To one that has begun, what it holds is copied into the
// file.
//
// A record survives any death of the process, but not a crash of the machine:
// after that, as after damage, a store begins anew, by the rule of
// ErrBeforeStart. Errors say that the file is not a store's, is open in another
// process, or cannot be written.
func (m *Memory) Persist(path string) (restored Restored, release func(), err error) {
	if path, err = filepath.Abs(path); err != nil {
		return restored, nil, err
	}
	p := &m.persistence
	p.mu.Lock()
	defer p.mu.Unlock()
	file := p.find(path)
	if file == nil {
		file = &persistentFile{path: path}
		if restored.Lost, err = m.open(file); err != nil {
			return restored, nil, err
		}
	}
	restored.Entries, _ = m.Entries()
	return restored, m.use(file), nil
}

// open opens a file, and says what is lost of it.
func (m *Memory) open(file *persistentFile) (lost, err error) {
	j, lost, err := openJournal(file.path)
	if err != nil {
		return nil, err
	}
	file.journal = j
	if lost == nil && m.persistence.suspended && j.header.Start != 0 {
		lost = errLeft // since it was closed
	}
	state, start := partOfIt, m.start.Load()
	switch {
	case m.hasBegun():
		if !errors.Is(lost, errDamaged) {
			lost = nil // the store knows better
		}
	case lost == nil && j.header.Start != 0:
		state, start = allIfAlive, j.header.Start
	default:
		start = m.now().UnixMilli()
	}
	if err := m.join(file, state, start); err != nil {
		m.remove(file)
		return nil, errors.Join(fmt.Errorf("%s: %w", file.path, err), j.file.Close())
	}
	m.startAt(start)
	return lost, nil
}

// join fills the store from a file, and has it written from then on. If the
// process dies meanwhile, the file has what state says.
func (m *Memory) join(file *persistentFile, state journalState, start int64) error {
	j := file.journal
	if err := j.begin(state); err != nil {
		return err
	}
	m.adopt(j.header.Retained, j.horizon, j.last)
	if err := m.fill(j); err != nil {
		return err
	}
	begun := m.hasBegun()
	if begun {
		clear(j.ends) // all of it is copied, and may be written over
	}
	m.persistence.set(append(slices.Clone(m.persistence.files), file))
	m.announce()
	if begun {
		if err := m.copyTo(j); err != nil {
			return err
		}
	}
	if m.persistence.suspended {
		return j.leave()
	}
	return j.complete(start)
}

// fill enters the records of a file that are alive.
func (m *Memory) fill(j *journal) error {
	horizon := m.advance(m.now())
	return j.each(func(r journalRecord, _ place) {
		if r.end >= horizon {
			m.restore(r, horizon)
		}
	})
}

// use has a file, or none, in use until release is called.
func (m *Memory) use(file *persistentFile) (release func()) {
	file.users++
	m.leaveUnused()
	return func() {
		m.persistence.mu.Lock()
		defer m.persistence.mu.Unlock()
		file.users--
		m.leaveUnused()
	}
}

// leaveUnused lets go of files that nobody uses, as soon as something else is in
// use: when a server stops, requests may come for longer than it uses its file.
func (m *Memory) leaveUnused() {
	p := &m.persistence
	if !slices.ContainsFunc(p.files, func(f *persistentFile) bool { return f.users > 0 }) {
		return
	}
	for _, file := range slices.Clone(p.files) {
		if file.users > 0 {
			continue
		}
		if file.journal == nil {
			m.remove(file)
			continue
		}
		_ = file.leave() // fails if the disk does
		m.remove(file)
		_ = file.close() // what was in it is in memory
	}
}

// remove has a file written no more.
func (m *Memory) remove(file *persistentFile) {
	p := &m.persistence
	p.set(slices.DeleteFunc(slices.Clone(p.files), func(f *persistentFile) bool { return f == file }))
	// Whoever still has it at hand holds a shard's lock.
	for i := range m.shards {
		m.shards[i].await()
	}
}

// Suspend says that from now on proofs are accepted that the store is not told of,
// as by another store: what its files have is not all, nor what those have that it
// is yet to open. It fails if that cannot be written.
func (m *Memory) Suspend() error {
	p := &m.persistence
	p.mu.Lock()
	defer p.mu.Unlock()
	p.suspended = true
	var errs []error
	for _, j := range p.all() {
		errs = append(errs, j.leave())
	}
	return errors.Join(errs...)
}

// Resume says that no proof is accepted any more that the store is not told of. It
// knows nothing of those that were made up to now and are not in it: see
// ErrBeforeStart. A store that has not begun has nothing to resume.
func (m *Memory) Resume() {
	p := &m.persistence
	p.mu.Lock()
	defer p.mu.Unlock()
	p.suspended = false
	if !m.hasBegun() {
		return
	}
	start := max(m.start.Load(), m.now().UnixMilli())
	m.start.Store(start)
	for _, j := range p.all() {
		_ = j.complete(start) // if it cannot be written yet, no record can before it is
	}
}

// Close ends the store: where it has a file, which is then in order, it records
// nothing any more.
func (m *Memory) Close() error {
	p := &m.persistence
	p.mu.Lock()
	defer p.mu.Unlock()
	var errs []error
	for _, j := range p.all() {
		errs = append(errs, j.close())
	}
	return errors.Join(errs...)
}

func (p *persistence) find(path string) *persistentFile {
	for _, file := range p.files {
		if file.path == path {
			return file
		}
	}
	return nil
}

func (p *persistence) set(files []*persistentFile) {
	p.files = files
	var journals []*journal
	for _, file := range files {
		if file.journal != nil {
			journals = append(journals, file.journal)
		}
	}
	p.journals.Store(&journals)
}

func (p *persistence) all() []*journal {
	if journals := p.journals.Load(); journals != nil {
		return *journals
	}
	return nil
}

// append writes a record to the files.
func (p *persistence) append(r journalRecord) error {
	for _, j := range p.all() {
		if err := j.append(r); err != nil {
			return err
		}
	}
	return nil
}

// retain has the files say by what lifetimes records are let go of.
func (p *persistence) retain(s savedRetention) {
	for _, j := range p.all() {
		j.retain(s)
	}
}
