package replay

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"math/bits"
	"os"
	"slices"
	"sync"
)

// journal is a file of what a Memory has accepted. A record is in it, by one
// write, before its proof counts as accepted: the kernel has it then, and no
// death of the process takes it back.
//
// The file is a header and blocks of records. A block whose records are all dead
// is used again, and records share a block only with such as have about as long
// to live: the file stays about as large as what was alive at the busiest time.
// It is read only to fill a store that starts. Any damage shows then, because
// the header and each place for a record have a checksum: of what is in it, of
// the file, and of where in the file it is.
type journal struct {
	mu      sync.Mutex
	file    *os.File
	header  header
	stale   bool            // the header could not be written as it is
	pending *savedRetention // for the header, once there is a record that needs it
	seed    uint32          // of the records' checksums
	ends    []uint32        // of each block, the last end of its records
	filling [33]place       // where a record goes, by how many bits its time to live has
	horizon uint32          // the highest of all records
	newest  uint32          // the last end of the records that were read

	octets [recordSize]byte // of the record that is written
}

const (
	journalMagic   = "DPoPused"
	journalVersion = 1

	headerSize = 4096 // one page, in which a write is whole or not there
	blockSize  = 64 << 10
	recordSize = 32
	blockSlots = blockSize / recordSize
)

// header is what the file says of itself. It is the file's first page, up to the
// checksum at its end.
type header struct {
	Magic    [8]byte
	Version  uint32 // it and Magic are there in every version
	State    journalState
	ID       [16]byte // of the file, random
	Boot     [16]byte // when the machine was started
	Start    int64    // the millisecond in which the store began to record
	Blocks   uint32
	Retained savedRetention
}

// journalState is what the file has of all that its store accepted.
type journalState uint32

const (
	partOfIt   journalState = iota // some
	allIfAlive                     // all, as long as the machine does not go down
	allOfIt                        // all, and on the disk
)

// place is where a record is.
type place struct{ block, slot int }

func (at place) offset() int64 {
	return headerSize + int64(at.block)*blockSize + int64(at.slot)*recordSize
}

// number tells a place from all others.
func (at place) number() uint32 { return uint32(at.block*blockSlots + at.slot) }

// journalRecord is a record of the file.
type journalRecord struct {
	key     entryKey
	end     uint32 // zero: there is none yet
	horizon uint32 // when it was made
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// writeAt is a variable for tests: before and after each call the process may die.
var writeAt = (*os.File).WriteAt

// What may be wrong with a file.
var (
	errDamaged = errors.New("is damaged")
	errForeign = errors.New("is not a file of accepted proofs: name another, or remove it")
	errInUse   = errors.New("is open in another process: each needs a file of its own")

	// Some of what was accepted may not be in it.
	errCrashed = errors.New("the machine went down while the file was open")
	errLeft    = errors.New("its store has gone on without the file, or never completed it")
)

// openJournal opens a file that no other process has open, and checks all of it,
// or makes it. What is lost of a file is nil, errCrashed or errLeft, or the
// damage for which it was put aside and a new one made.
func openJournal(path string) (j *journal, lost, err error) {
	file, err := openLocked(path, 0)
	if errors.Is(err, fs.ErrNotExist) {
		j, err = makeJournal(path)
		return j, nil, err
	}
	if err != nil {
		return nil, nil, err
	}
	j = newJournal(file)
	err = j.check()
	if err == nil {
		return j, j.lost(), nil
	}
	err = fmt.Errorf("%s %w", path, err)
	// Until there is another file, nobody else shall find this one and put the
	// other aside.
	defer file.Close()
	if !errors.Is(err, errDamaged) {
		return nil, nil, err
	}
	lost = fmt.Errorf("%w; it is kept as %s.damaged", err, path)
	if err := os.Rename(path, path+".damaged"); err != nil {
		return nil, nil, errors.Join(lost, err)
	}
	j, err = makeJournal(path)
	return j, lost, err
}

// openLocked opens a file for this process alone.
func openLocked(path string, flag int) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_RDWR|flag, 0o600)
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	switch {
	case err != nil:
	case !info.Mode().IsRegular():
		err = errForeign
	default:
		err = lockFile(file)
	}
	if err == nil {
		// Who had it locked until now may have put it aside.
		if named, failed := os.Stat(path); failed != nil || !os.SameFile(info, named) {
			err = errInUse
		}
	}
	if err != nil {
		_ = file.Close()
		return nil, fmt.Errorf("%s %w", path, err)
	}
	return file, nil
}

func newJournal(file *os.File) *journal {
	j := &journal{file: file}
	for i := range j.filling {
		j.filling[i].slot = blockSlots
	}
	return j
}

// makeJournal makes a file with room for its first records.
func makeJournal(path string) (*journal, error) {
	file, err := openLocked(path, os.O_CREATE|os.O_EXCL)
	if err != nil {
		return nil, err
	}
	j := newJournal(file)
	j.header = header{Version: journalVersion}
	copy(j.header.Magic[:], journalMagic)
	_, _ = rand.Read(j.header.ID[:]) // never fails
	j.seed = crc32.Checksum(j.header.ID[:], castagnoli)
	if err := errors.Join(j.writeHeader(), j.grow()); err != nil {
		_ = os.Remove(path)
		_ = file.Close()
		return nil, err
	}
	return j, nil
}

// check reads the header and all records.
func (j *journal) check() error {
	page := make([]byte, headerSize)
	n, err := j.file.ReadAt(page, 0)
	version := binary.LittleEndian.Uint32(page[len(journalMagic):])
	switch {
	case err != nil && !errors.Is(err, io.EOF):
		return err
	case !bytes.HasPrefix([]byte(journalMagic), page[:min(n, len(journalMagic))]):
		return errForeign
	case n < headerSize:
		return fmt.Errorf("%w: it is cut short", errDamaged)
	case version != journalVersion:
		return fmt.Errorf("is of format %d, and this program knows %d: use the other program, or remove it", version, journalVersion)
	case crc32.Checksum(page[:headerSize-4], castagnoli) != binary.LittleEndian.Uint32(page[headerSize-4:]):
		return fmt.Errorf("%w: its header is not as it was written", errDamaged)
	}
	if _, err := binary.Decode(page, binary.LittleEndian, &j.header); err != nil {
		return err
	}
	info, err := j.file.Stat()
	if err != nil {
		return err
	}
	if j.header.Retained.Eras > maxEras || info.Size() < headerSize+int64(j.header.Blocks)*blockSize {
		return fmt.Errorf("%w: it is cut short, or its header is wrong", errDamaged)
	}
	j.seed = crc32.Checksum(j.header.ID[:], castagnoli)
	j.ends = make([]uint32, j.header.Blocks)
	return j.each(func(r journalRecord, at place) {
		j.ends[at.block] = max(j.ends[at.block], r.end)
		j.newest = max(j.newest, r.end)
		j.horizon = max(j.horizon, r.horizon)
	})
}

// each reads all records.
func (j *journal) each(visit func(journalRecord, place)) error {
	block := make([]byte, blockSize)
	for number := range j.ends {
		at := place{number, 0}
		_, err := j.file.ReadAt(block, at.offset())
		if errors.Is(err, io.EOF) {
			return fmt.Errorf("%w: it is cut short", errDamaged)
		}
		if err != nil {
			return err
		}
		for ; at.slot < blockSlots; at.slot++ {
			r, ok := j.decode(block[at.slot*recordSize:][:recordSize], at)
			if !ok {
				return fmt.Errorf("%w: at byte %d it is not as it was written", errDamaged, at.offset())
			}
			if r.end != 0 {
				visit(r, at)
			}
		}
	}
	return nil
}

func (j *journal) encode(octets []byte, r journalRecord, at place) {
	binary.LittleEndian.PutUint64(octets[0:], r.key.first)
	binary.LittleEndian.PutUint64(octets[8:], r.key.second)
	binary.LittleEndian.PutUint32(octets[16:], r.end)
	binary.LittleEndian.PutUint32(octets[20:], r.horizon)
	binary.LittleEndian.PutUint32(octets[24:], at.number())
	binary.LittleEndian.PutUint32(octets[28:], crc32.Update(j.seed, castagnoli, octets[:28]))
}

func (j *journal) decode(octets []byte, at place) (r journalRecord, ok bool) {
	r.key = entryKey{binary.LittleEndian.Uint64(octets[0:]), binary.LittleEndian.Uint64(octets[8:])}
	r.end = binary.LittleEndian.Uint32(octets[16:])
	r.horizon = binary.LittleEndian.Uint32(octets[20:])
	return r, binary.LittleEndian.Uint32(octets[24:]) == at.number() &&
		binary.LittleEndian.Uint32(octets[28:]) == crc32.Update(j.seed, castagnoli, octets[:28])
}

// append writes a record. If it fails, the proof must not be accepted.
func (j *journal) append(r journalRecord) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.pending != nil || j.stale {
		if err := j.catchUp(); err != nil {
			return err
		}
	}
	// The horizon never goes back in the order of writing, so that what is written
	// over what it has passed tells of it.
	j.horizon = max(j.horizon, r.horizon)
	r.horizon = j.horizon
	at := &j.filling[bits.Len32(r.end-min(r.end, r.horizon))]
	if at.slot == blockSlots {
		number, err := j.takeBlock()
		if err != nil {
			return err
		}
		*at = place{number, 0}
	}
	j.encode(j.octets[:], r, *at)
	if _, err := writeAt(j.file, j.octets[:], at.offset()); err != nil {
		return err
	}
	j.ends[at.block] = max(j.ends[at.block], r.end)
	at.slot++
	return nil
}

// takeBlock returns a block in which nothing is alive, at the end of the file if
// there is none within it.
func (j *journal) takeBlock() (int, error) {
	for number, end := range j.ends {
		filling := func(at place) bool { return at.block == number && at.slot < blockSlots }
		if end < j.horizon && !slices.ContainsFunc(j.filling[:], filling) {
			return number, nil
		}
	}
	return len(j.ends), j.grow()
}

// grow adds a block: first to the file, so that the disk has room for the whole of
// it before a record is in it, and then to the header.
func (j *journal) grow() error {
	block := make([]byte, blockSize)
	at := place{len(j.ends), 0}
	for ; at.slot < blockSlots; at.slot++ {
		j.encode(block[at.slot*recordSize:], journalRecord{}, at)
	}
	if _, err := writeAt(j.file, block, place{at.block, 0}.offset()); err != nil {
		return err
	}
	j.header.Blocks++
	if err := j.writeHeader(); err != nil {
		j.header.Blocks--
		return err
	}
	j.ends = append(j.ends, 0)
	return nil
}

// retain has the next record preceded by what it is to say of the lifetimes: if
// there is none, they do not matter to who reads the file.
func (j *journal) retain(s savedRetention) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.pending = &s
}

// catchUp writes the header as it must be before the next record.
func (j *journal) catchUp() error {
	if j.pending != nil {
		j.header.Retained, j.pending = *j.pending, nil
	}
	return j.writeHeader()
}

func (j *journal) writeHeader() error {
	page := make([]byte, headerSize)
	if _, err := binary.Encode(page, binary.LittleEndian, &j.header); err != nil {
		return err
	}
	binary.LittleEndian.PutUint32(page[headerSize-4:], crc32.Checksum(page[:headerSize-4], castagnoli))
	_, err := writeAt(j.file, page, 0)
	j.stale = err != nil
	return err
}

// begin says, also to who reads the disk after a crash of the machine, that the
// file is in use from now on, and what is in it until complete is called.
func (j *journal) begin(state journalState) error {
	j.header.State, j.header.Boot = state, bootID()
	return errors.Join(j.writeHeader(), j.file.Sync())
}

// complete says that all is in the file that was accepted since start.
func (j *journal) complete(start int64) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.header.State, j.header.Start = allIfAlive, start
	return j.catchUp()
}

// leave says that what is accepted from now on will not be in the file.
func (j *journal) leave() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.header.State = partOfIt
	return j.writeHeader()
}

// close closes the file. From now on nothing can be appended.
func (j *journal) close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	err := j.file.Sync()
	if err == nil && j.header.State == allIfAlive {
		j.header.State = allOfIt
		err = errors.Join(j.writeHeader(), j.file.Sync())
	}
	return errors.Join(err, j.file.Close())
}

// lost returns why something may not be in the file; nil: all is.
func (j *journal) lost() error {
	switch {
	case j.header.State == allOfIt || j.header.State == allIfAlive && j.header.Boot == bootID():
		return nil
	case j.header.State == allIfAlive:
		return errCrashed
	default:
		return errLeft
	}
}

// bootID tells one start of the machine from another, where that is to be had.
// Elsewhere all are alike, and a crash of the machine goes unnoticed.
func bootID() (id [16]byte) {
	text, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err == nil {
		_, _ = hex.Decode(id[:], bytes.ReplaceAll(bytes.TrimSpace(text), []byte("-"), nil))
	}
	return id
}
