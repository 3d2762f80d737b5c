package replay

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
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
//
// Measured beside it, all without waiting for the disk, which the death of a
// process does not ask for: this log takes 0.3 µs of CPU for a record. The same
// log written through a mapping takes a fifth of that; but where the disk fails,
// or somebody cuts the file, it is the whole server that ends, by a signal, and
// not one request with 503. A hash table in a mapping, which starts without being
// read, does too, must have its full size from the beginning, and takes longer
// than the log, because each record is in another page. Of embedded stores, bbolt
// takes 20 µs, and Pebble 1.5 µs but loses what it acknowledged last when it is
// killed; if it waits for the disk, it takes 25 µs, and a quarter of a millisecond
// on the clock. None of them would save what is most of this file: to know what was
// let go of, and that nothing is missing.
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
	last    uint32          // the last end of the records that were read

	octets [recordSize]byte // of the record that is written
}

// writeAt is a variable for tests: before and after each call the process may die.
var writeAt = (*os.File).WriteAt

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
	number := len(j.ends)
	return number, j.grow()
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
