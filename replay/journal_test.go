package replay

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

const lifetime = 70 * time.Second

// fastDir is a folder for files that are made by the thousand.
func fastDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "replay")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// persisted opens a store with a file, as a server does that starts.
func persisted(t testing.TB, c *clock, path string, lifetimes Lifetimes) (*Memory, Restored) {
	t.Helper()
	m := newMemory(1<<30, c.now)
	m.Retain(lifetimes)
	restored, _, err := m.Persist(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Close() }) // again, where the test has done so
	return m, restored
}

// killed copies a file as it is now: what is left of it if the process is killed.
func killed(t testing.TB, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return written(t, fastDir(t), content)
}

func written(t testing.TB, dir string, content []byte) (path string) {
	t.Helper()
	path = filepath.Join(dir, "proofs")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// sealed gives the header of a file the checksum that it would have.
func sealed(content []byte) []byte {
	binary.LittleEndian.PutUint32(content[headerSize-4:], crc32.Checksum(content[:headerSize-4], castagnoli))
	return content
}

// withHeader changes the header of a file.
func withHeader(t testing.TB, content []byte, change func(*header)) []byte {
	t.Helper()
	var h header
	if _, err := binary.Decode(content, binary.LittleEndian, &h); err != nil {
		t.Fatal(err)
	}
	change(&h)
	content = slices.Clone(content)
	if _, err := binary.Encode(content, binary.LittleEndian, &h); err != nil {
		t.Fatal(err)
	}
	return sealed(content)
}

// usedFile returns the content of a file in which the proofs 1 to n were
// accepted ten seconds after the epoch, and a clock of then.
func usedFile(t testing.TB, n int) ([]byte, *clock) {
	t.Helper()
	c := new(clock)
	c.unix.Store(epoch)
	path := filepath.Join(fastDir(t), "proofs")
	m, _ := persisted(t, c, path, Lifetimes{IssuedAt: lifetime})
	c.advance(10 * time.Second)
	for i := range n {
		record(t, m, use(i+1, epoch+5), nil)
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return content, c
}

// checkBroken opens content that is broken. It must be refused and left as it is,
// or put aside, and no proof of before be judged.
func checkBroken(t *testing.T, dir, what string, content []byte, c *clock) {
	t.Helper()
	path := written(t, dir, content)
	m := newMemory(1<<30, c.now)
	m.Retain(Lifetimes{IssuedAt: lifetime})
	restored, _, err := m.Persist(path)
	kept := path + ".damaged"
	switch {
	case err != nil:
		if _, err := os.Stat(kept); err == nil {
			t.Fatalf("%s: refused, and yet put aside", what)
		}
		if kept = path; !strings.Contains(err.Error(), path) || m.Record(gone(t), use(1, epoch+5)) == nil {
			t.Fatalf("%s: %v", what, err)
		}
	case restored.Lost == nil:
		t.Fatalf("%s: taken for good", what)
	default:
		for _, n := range []int{1, 2, 99} {
			record(t, m, use(n, epoch+5), ErrBeforeStart)
		}
		if err := m.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := os.ReadFile(kept); err != nil || !bytes.Equal(got, content) {
		t.Fatalf("%s: not kept as it was: %v", what, err)
	}
	_ = os.Remove(path + ".damaged")
}

// Bytes that are not as they were written show, wherever they are.
func TestJournalWithFlippedBytes(t *testing.T) {
	content, c := usedFile(t, 1000)
	dir := fastDir(t)
	random := rand.New(rand.NewPCG(3, 4))
	flip := func(at int) {
		flipped := slices.Clone(content)
		flipped[at] ^= byte(1 + random.IntN(255))
		checkBroken(t, dir, fmt.Sprint("byte ", at), flipped, c)
	}
	for at := range headerSize + 2*recordSize {
		flip(at)
	}
	for range 1000 {
		flip(random.IntN(len(content)))
	}
}

func TestJournalCutShort(t *testing.T) {
	content, c := usedFile(t, 3*blockSlots)
	dir := fastDir(t)
	random := rand.New(rand.NewPCG(3, 4))
	for size := range headerSize + 1 {
		checkBroken(t, dir, fmt.Sprint("size ", size), content[:size], c)
	}
	for block := range len(content) / blockSize {
		checkBroken(t, dir, fmt.Sprint("blocks ", block), content[:headerSize+block*blockSize], c)
	}
	for range 100 {
		size := random.IntN(len(content))
		checkBroken(t, dir, fmt.Sprint("size ", size), content[:size], c)
	}
}

// What a disk or a person can do beyond a byte: what is there is right, but not
// in its place, or of another file, or nothing.
func TestJournalWithPartsThatAreElsewhere(t *testing.T) {
	content, c := usedFile(t, 3*blockSlots)
	other, _ := usedFile(t, 3*blockSlots)
	dir := fastDir(t)
	record := func(n int) []byte { return content[headerSize+n*recordSize:][:recordSize] }
	block := func(n int) []byte { return content[headerSize+n*blockSize:][:blockSize] }
	changed := func(at int, by []byte) []byte {
		all := slices.Clone(content)
		copy(all[at:], by)
		return all
	}
	for what, content := range map[string][]byte{
		"one record is zeros":         changed(headerSize, make([]byte, recordSize)),
		"the last record is zeros":    changed(len(content)-recordSize, make([]byte, recordSize)),
		"a page is zeros":             changed(headerSize+5*4096, make([]byte, 4096)),
		"all records are zeros":       changed(headerSize, make([]byte, len(content)-headerSize)),
		"a record is twice":           changed(headerSize+recordSize, record(0)),
		"a block is twice":            changed(headerSize+blockSize, block(0)),
		"an unused record is first":   changed(headerSize, content[len(content)-recordSize:]),
		"a record is another file's":  changed(headerSize, other[headerSize:headerSize+recordSize]),
		"the records are another's":   changed(headerSize, other[headerSize:]),
		"the header is another's":     changed(0, other[:headerSize]),
		"the header is zeros":         changed(0, make([]byte, headerSize)),
		"the header is half written":  changed(0, make([]byte, headerSize/2)),
		"there are too many eras":     withHeader(t, content, func(h *header) { h.Retained.Eras = maxEras + 1 }),
		"there are too many blocks":   withHeader(t, content, func(h *header) { h.Blocks++ }),
		"there are 2^32 blocks":       withHeader(t, content, func(h *header) { h.Blocks = 1<<32 - 1 }),
		"it was never completed":      withHeader(t, content, func(h *header) { h.State = partOfIt }),
		"its state is unknown":        withHeader(t, content, func(h *header) { h.State = 3 }),
		"the machine was restarted":   withHeader(t, content, func(h *header) { h.State, h.Boot[0] = allIfAlive, h.Boot[0]+1 }),
		"it is of another version":    withHeader(t, content, func(h *header) { h.Version++ }),
		"it is of another program":    []byte("SQLite format 3\x00" + strings.Repeat("x", 8000)),
		"it is a text":                []byte("hello\n"),
		"it is the start of a header": content[:7],
		"it is zeros":                 make([]byte, len(content)),
		"it is empty":                 {},
	} {
		t.Run(what, func(t *testing.T) {
			if kept := what == "it was never completed" || what == "its state is unknown" || what == "the machine was restarted"; kept {
				// it is used on, with what is in it
				m, restored := persisted(t, c, written(t, dir, content), Lifetimes{IssuedAt: lifetime})
				if restored.Lost == nil || restored.Entries != 3*blockSlots {
					t.Fatalf("%+v", restored)
				}
				requireError(t, m, use(1, epoch+5), ErrReplayed)
				requireError(t, m, use(1<<20, epoch+5), ErrBeforeStart)
				requireError(t, m, use(1, epoch+11), ErrReplayed)
				return
			}
			checkBroken(t, dir, what, content, c)
		})
	}
}

func requireError(t *testing.T, m *Memory, u Use, want error) {
	t.Helper()
	record(t, m, u, want)
}

// What tells the operator what to do.
func TestJournalThatIsRefused(t *testing.T) {
	content, c := usedFile(t, 5)
	dir := fastDir(t)
	for _, row := range []struct {
		content []byte
		want    string
	}{
		{[]byte("hello"), "is not a file of accepted proofs: name another, or remove it"},
		{withHeader(t, content, func(h *header) { h.Version = 7 }), "is of format 7, and this program knows 1: use the other program, or remove it"},
		// A later format need have nothing else in common with this one.
		{append([]byte(journalMagic+"\x02\x00\x00\x00"), bytes.Repeat([]byte{0xff}, 1<<16)...), "is of format 2"},
	} {
		path := written(t, dir, row.content)
		_, _, err := newMemory(10, c.now).Persist(path)
		if err == nil || !strings.Contains(err.Error(), path+" "+row.want) {
			t.Errorf("got %v, want %s", err, row.want)
		}
	}
	paths := []string{dir, filepath.Join(dir, "nowhere", "proofs")}
	// Like /dev/null, which reads as an empty file does, and must not be put aside.
	if device := filepath.Join(dir, "null"); exec.Command("mknod", device, "c", "1", "3").Run() == nil {
		paths = append(paths, device)
	}
	for _, path := range paths {
		before, _ := os.Stat(path)
		_, _, err := newMemory(10, c.now).Persist(path)
		if err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", path, err)
		}
		if after, _ := os.Stat(path); before != nil && (after == nil || after.Mode() != before.Mode()) {
			t.Fatalf("%s was replaced", path)
		}
	}
}

// A size that a header only claims takes no memory.
func TestJournalAllocatesNothingForAClaim(t *testing.T) {
	content, _ := usedFile(t, 5)
	path := written(t, fastDir(t), withHeader(t, content, func(h *header) { h.Blocks = 1<<32 - 1 }))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	j, lost, err := openJournal(path)
	runtime.ReadMemStats(&after)
	if err != nil || !errors.Is(lost, errDamaged) {
		t.Fatal(lost, err)
	}
	_ = j.close()
	if size := after.TotalAlloc - before.TotalAlloc; size > 1<<20 {
		t.Errorf("%d bytes", size)
	}
}

// Whoever has damage put aside holds the file until there is another, so that
// nobody else puts that aside.
func TestJournalPutAsideByOneAlone(t *testing.T) {
	for range 100 {
		path := written(t, fastDir(t), []byte(journalMagic))
		opened := make(chan *journal)
		for range 4 {
			go func() {
				j, _, err := openJournal(path)
				if err != nil && !errors.Is(err, errInUse) && !errors.Is(err, fs.ErrExist) && !errors.Is(err, fs.ErrNotExist) {
					t.Error(err)
				}
				opened <- j
			}()
		}
		var all []*journal
		for range 4 {
			if j := <-opened; j != nil {
				all = append(all, j)
			}
		}
		if len(all) > 1 {
			t.Fatalf("%d have it open", len(all))
		}
		if len(all) == 1 {
			info, _ := all[0].file.Stat()
			if named, err := os.Stat(path); err != nil || !os.SameFile(info, named) {
				t.Fatal("the file that is open was put aside")
			}
			_ = all[0].close()
		}
	}
}

// The damaged file is held until there is another.
func TestJournalHeldWhilePutAside(t *testing.T) {
	path := written(t, fastDir(t), []byte(journalMagic))
	looked := false
	t.Cleanup(func() { writeAt = (*os.File).WriteAt })
	writeAt = func(file *os.File, octets []byte, at int64) (int, error) {
		if _, err := openLocked(path+".damaged", 0); !errors.Is(err, errInUse) {
			t.Errorf("the damaged file can be had: %v", err)
		}
		looked = true
		return file.WriteAt(octets, at)
	}
	j, _, err := openJournal(path)
	if err != nil || !looked {
		t.Fatal(err)
	}
	_ = j.close()
}

// Blocks are used again, so that the file stays as large as what is alive, whatever
// lives longer than most.
func TestJournalStaysSmall(t *testing.T) {
	for _, row := range []struct {
		name  string
		ahead func(n int) int64 // how far iat is ahead
	}{
		{"all alike", func(int) int64 { return 0 }},
		{"clocks differ", func(n int) int64 { return int64(n%120 - 60) }},
		{"some live long", func(n int) int64 {
			if n%50 == 0 {
				return 1700
			}
			return 0
		}},
		{"some live for very long", func(n int) int64 {
			if n%50 == 0 {
				return 3600
			}
			return 0
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			c := new(clock)
			c.unix.Store(epoch)
			path := filepath.Join(fastDir(t), "proofs")
			m, _ := persisted(t, c, path, Lifetimes{IssuedAt: lifetime, Nonce: 5 * time.Minute})
			c.advance(100 * time.Second)
			live, written := 0, 0
			for second := range 7200 {
				for range 1 + 60*(second/600%2) { // it comes in waves
					now := c.now().Unix()
					record(t, m, withNonce(written, now+row.ahead(written), now), nil)
					written++
				}
				if now, _ := m.Entries(); now > live {
					live = now
				}
				c.advance(time.Second)
			}
			info, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			most := int64(2*live*recordSize + headerSize + 4*blockSize)
			t.Logf("%d records, of which %d lived at once: %d bytes, %.1f for each", written, live, info.Size(), float64(info.Size())/float64(live))
			if info.Size() > most || written < 10*live {
				t.Errorf("%d bytes, want at most %d", info.Size(), most)
			}
			_, restored := persisted(t, c, killed(t, path), Lifetimes{IssuedAt: lifetime, Nonce: 5 * time.Minute})
			if live, _ := m.Entries(); restored.Entries != live || restored.Lost != nil {
				t.Errorf("restored %+v, of %d", restored, live)
			}
		})
	}
}

// What is written over what a horizon has passed tells of that horizon, whatever
// becomes of the record that had it.
func TestJournalTellsOfItsHorizon(t *testing.T) {
	path := newPath(t)
	j, _, err := openJournal(path)
	if err != nil {
		t.Fatal(err)
	}
	for n := range uint64(blockSlots) {
		if err := j.append(journalRecord{entryKey{n, 1}, 99, 40}); err != nil {
			t.Fatal(err)
		}
	}
	broken := errors.New("broken")
	failing := true
	failWrites(t, func(octets []byte, _ int64) error {
		if failing && len(octets) == recordSize {
			return broken
		}
		return nil
	})
	if err := j.append(journalRecord{entryKey{1, 2}, 159, 100}); !errors.Is(err, broken) {
		t.Fatal(err)
	}
	failing = false
	if err := j.append(journalRecord{entryKey{2, 2}, 157, 98}); err != nil {
		t.Fatal(err)
	}
	j, _, err = openJournal(killed(t, path))
	if err != nil || j.horizon != 100 || j.last != 157 {
		t.Errorf("%v, horizon %d, last %d", err, j.horizon, j.last)
	}
}

// A block that is not full yet is nobody else's, although all in it is dead.
func TestJournalKeepsBlocksApart(t *testing.T) {
	path := newPath(t)
	j, _, err := openJournal(path)
	if err != nil {
		t.Fatal(err)
	}
	n := uint64(0)
	add := func(end, horizon uint32, times int) {
		t.Helper()
		for range times {
			n++
			if err := j.append(journalRecord{entryKey{n, 0}, end, horizon}); err != nil {
				t.Fatal(err)
			}
		}
	}
	add(1010, 1000, 1)
	add(1370, 1300, 10) // the first block is dead, and has room
	add(1320, 1301, 1)
	add(1311, 1301, 10)
	j, _, err = openJournal(killed(t, path))
	if err != nil {
		t.Fatal(err)
	}
	alive := uint64(0)
	if err := j.each(func(r journalRecord, _ place) {
		if r.end > 1301 {
			alive++
		}
	}); err != nil || alive != n-1 {
		t.Errorf("%d records of %d are there, %v", alive, n-1, err)
	}
}

// What is to be said of the lifetimes is, when the file is complete.
func TestJournalCompletesWithLifetimes(t *testing.T) {
	path := newPath(t)
	j, _, err := openJournal(path)
	if err != nil {
		t.Fatal(err)
	}
	j.retain(savedRetention{IssuedAt: 7})
	if err := errors.Join(j.complete(5), j.close()); err != nil {
		t.Fatal(err)
	}
	j, lost, err := openJournal(path)
	if err != nil || lost != nil || j.header.Retained.IssuedAt != 7 || j.header.Start != 5 {
		t.Errorf("%v %v %+v", err, lost, j.header)
	}
}

// Restarts alone make neither the file nor the eras grow.
func TestJournalManyRestarts(t *testing.T) {
	c := new(clock)
	c.unix.Store(epoch)
	path := filepath.Join(fastDir(t), "proofs")
	lifetimes := Lifetimes{IssuedAt: lifetime, Nonce: 5 * time.Minute}
	n := 0
	for restart := range 200 {
		m, restored := persisted(t, c, path, lifetimes)
		if restored.Lost != nil || len(m.all()) != 1 {
			t.Fatalf("%+v, %d eras", restored, len(m.all()))
		}
		for range 300 {
			n++
			c.advance(time.Second * time.Duration(n%2))
			record(t, m, use(n, c.now().Unix()), nil)
		}
		if restart%2 == 0 {
			path = killed(t, path)
		} else if err := m.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if info, err := os.Stat(path); err != nil || info.Size() > headerSize+20*blockSize {
		t.Errorf("%d bytes, %v", info.Size(), err)
	}
}

// The parser takes whatever is in a file; with a checksum that fits, so that it
// gets past the header.
func FuzzJournal(f *testing.F) {
	content, c := usedFile(f, 3)
	f.Add(content[:headerSize+blockSize], true)
	f.Add(content, false)
	f.Add(content[:headerSize], true)
	f.Add([]byte{}, false)
	dir := fastDir(f)
	f.Fuzz(func(t *testing.T, content []byte, seal bool) {
		if seal && len(content) >= headerSize {
			content = sealed(slices.Clone(content))
		}
		path := written(t, dir, content)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		m := newMemory(1<<30, c.now)
		m.Retain(Lifetimes{IssuedAt: lifetime})
		if _, _, err := m.Persist(path); err == nil {
			_ = m.Record(t.Context(), use(1, epoch+9))
			_ = m.Close()
		}
		runtime.ReadMemStats(&after)
		if size := after.TotalAlloc - before.TotalAlloc; size > 4<<20+10*uint64(len(content)) {
			t.Errorf("%d bytes", size)
		}
	})
}
