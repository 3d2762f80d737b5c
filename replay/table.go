package replay

import (
	"bytes"
	"encoding/binary"
	"hash/maphash"
	"sync"
)

// table is an extendible hash table (Fagin, Nievergelt, Pippenger and Strong,
// 1979): a directory of small pages, of which a full one is split in two. No
// insert moves more than one page's entries, so there is no moment of growth;
// and nothing in a page is a pointer that the garbage collector would follow.
type table struct {
	mu        sync.Mutex
	directory []uint32 // numbers of pages, by the first bits of a position
	depth     uint     // how many bits
	chunks    [][]page // each twice as large as the one before, up to chunkPages
}

const (
	pageSlots  = 32
	firstChunk = 8 // pages
	chunkBits  = 10
	chunkPages = 1 << chunkBits
)

// page holds the entries whose positions begin with the same bits. A slot whose
// end is below the horizon is free: its entry is dead, or there never was one.
type page struct {
	tags  [pageSlots]byte // of the keys: most that are not the one looked for need no other look
	ends  [pageSlots]uint32
	depth uint32 // how many bits
	keys  [pageSlots]entryKey
}

// tagOf returns eight bits of a position that do not say which page it belongs in.
func tagOf(position uint64) byte { return byte(position >> shardBits) }

// entryKey is the first half of a Key: 128 bits of a cryptographic hash.
type entryKey struct{ first, second uint64 }

// position returns where a key belongs: by its first bits in a shard, then in a
// page. It depends on a secret, so that no client can choose proofs that all
// belong in one place.
func (k entryKey) position(seed maphash.Seed) uint64 {
	var octets [16]byte
	binary.LittleEndian.PutUint64(octets[:], k.first)
	binary.LittleEndian.PutUint64(octets[8:], k.second)
	return maphash.Bytes(seed, octets[:])
}

// lookup returns the page of a position, and where the directory has it.
func (t *table) lookup(position uint64) (*page, int) {
	index := int(position >> (64 - t.depth)) // a shift by 64 is zero in Go
	return t.page(t.directory[index]), index
}

func (t *table) page(number uint32) *page {
	return &t.chunks[number>>chunkBits][number&(chunkPages-1)]
}

// holds reports whether the table has a live entry of the key.
func (t *table) holds(key entryKey, position uint64, horizon uint32) bool {
	if t.directory == nil {
		return false
	}
	p, _ := t.lookup(position)
	tag := tagOf(position)
	for i := 0; ; i++ {
		next := bytes.IndexByte(p.tags[i:], tag)
		if next < 0 {
			return false
		}
		i += next
		if p.keys[i] == key && p.ends[i] >= horizon {
			return true
		}
	}
}

// insert adds an entry that the table does not hold.
func (t *table) insert(key entryKey, position uint64, a Admission, seed maphash.Seed) {
	if t.directory == nil {
		t.directory = []uint32{t.newPage(0)}
	}
	for {
		p, index := t.lookup(position)
		for i := range p.ends {
			if p.ends[i] < a.Horizon {
				p.tags[i], p.ends[i], p.keys[i] = tagOf(position), a.Until, key
				return
			}
		}
		t.split(p, index, seed)
	}
}

// split divides a page by the next bit of its entries' positions.
func (t *table) split(p *page, index int, seed maphash.Seed) {
	if uint(p.depth) == t.depth {
		t.double()
		index *= 2
	}
	p.depth++
	number := t.newPage(p.depth)
	sibling := t.page(number)
	// shards are chosen by the first bits of a position, which are gone here
	bit := uint64(1) << (64 - p.depth)
	next := 0
	for i := range p.keys {
		if (p.keys[i].position(seed)<<shardBits)&bit != 0 {
			sibling.tags[next], sibling.ends[next], sibling.keys[next] = p.tags[i], p.ends[i], p.keys[i]
			p.ends[i] = 0
			next++
		}
	}
	// The directory's entries for the page are neighbours: the second half of
	// them is the sibling's.
	span := 1 << (t.depth - uint(p.depth))
	second := index&^(2*span-1) + span
	for i := second; i < second+span; i++ {
		t.directory[i] = number
	}
}

// double makes the directory look at one bit more.
func (t *table) double() {
	directory := make([]uint32, 2*len(t.directory))
	for i, number := range t.directory {
		directory[2*i], directory[2*i+1] = number, number
	}
	t.directory = directory
	t.depth++
}

// newPage returns the number of a new page: its chunk, then its place in it.
func (t *table) newPage(depth uint32) uint32 {
	last := len(t.chunks) - 1
	if last < 0 || len(t.chunks[last]) == cap(t.chunks[last]) {
		size := firstChunk
		if last >= 0 {
			size = min(2*cap(t.chunks[last]), chunkPages)
		}
		t.chunks = append(t.chunks, make([]page, 0, size))
		last++
	}
	t.chunks[last] = append(t.chunks[last], page{depth: depth})
	return uint32(last)<<chunkBits | uint32(len(t.chunks[last])-1)
}

// await returns when those are done that work on the table now.
func (t *table) await() {
	t.mu.Lock()
	defer t.mu.Unlock()
}

// copyTo appends the live entries to a file.
func (t *table) copyTo(j *journal, horizon uint32) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, chunk := range t.chunks {
		for i := range chunk {
			for slot, end := range chunk[i].ends {
				if end < horizon {
					continue
				}
				if err := j.append(journalRecord{chunk[i].keys[slot], end, horizon}); err != nil {
					return err
				}
			}
		}
	}
	return nil
}
