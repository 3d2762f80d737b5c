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
	"os"
)

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
		j.last = max(j.last, r.end)
		j.horizon = max(j.horizon, r.horizon)
	})
}

// each reads all records, also those whose end is zero.
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
			visit(r, at)
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
