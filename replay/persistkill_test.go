package replay

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// snapshot is what is left of files if the process is killed, how many proofs it
// had accepted by then, and which file was in use, if a reload was not under way;
// or whether one reload to the other was.
type snapshot struct {
	at       string
	files    map[string][]byte
	accepted int
	inUse    string
	either   bool
	when     int64
}

// Whenever the process dies, between any two writes or in one, no file is left
// that brings a used proof back; and the one in use has everything.
func TestPersistKilledAtAnyWrite(t *testing.T) {
	c, one, two := newClock(), newPath(t), newPath(t)
	var snapshots []snapshot
	var accepted []Use
	inUse, either := "", false
	take := func(at string, whole bool) {
		s := snapshot{at, map[string][]byte{}, len(accepted), "", false, c.unix.Load()}
		if whole {
			s.inUse, s.either = inUse, either
		}
		for _, path := range []string{one, two} {
			if content, err := os.ReadFile(path); err == nil {
				s.files[path] = content
			}
		}
		snapshots = append(snapshots, s)
	}
	records := 0
	writeAt = func(file *os.File, octets []byte, at int64) (int, error) {
		if len(octets) == recordSize {
			if records++; records%1000 > 2 {
				return file.WriteAt(octets, at)
			}
		}
		what := fmt.Sprintf("%d bytes at %d of %s after %d proofs", len(octets), at, filepath.Dir(file.Name()), len(accepted))
		take("before "+what, true)
		for _, part := range []int{1, len(octets) / 2, len(octets) - 1} {
			_, _ = file.WriteAt(octets[:part], at)
			take("in "+what, false)
		}
		n, err := file.WriteAt(octets, at)
		take("after "+what, true)
		return n, err
	}
	t.Cleanup(func() { writeAt = (*os.File).WriteAt })

	next := 0
	accept := func(m *Memory, n int) {
		for range n {
			u := use(next, c.now().Unix()-int64(next%30))
			if next%3 == 0 {
				u = withNonce(next, c.now().Unix(), c.now().Unix())
			}
			next++
			record(t, m, u, nil)
			accepted = append(accepted, u)
		}
	}
	m := newMemory(1<<30, c.now)
	m.Retain(both)
	c.advance(time.Second)
	stop := reload(t, m, nil, one)
	inUse = one
	c.advance(time.Minute)
	accept(m, 20)
	for _, path := range []string{two, one, "", one} {
		either, inUse = inUse != "" && path != "", ""
		stop = reload(t, m, stop, path)
		either, inUse = false, path
		accept(m, 20)
		next := m.Retain(wide)
		accept(m, 20)
		next()
		c.advance(time.Second)
	}
	accept(m, 2*blockSlots) // the file grows
	c.advance(40 * time.Minute)
	accept(m, 2*blockSlots) // within
	stop()
	closed(t, m)
	m = newMemory(1<<30, c.now)
	m.Retain(both)
	reload(t, m, nil, one)
	accept(m, 10)
	writeAt = (*os.File).WriteAt

	t.Log(len(snapshots), "snapshots of", len(accepted), "proofs")
	lost := 0
	for _, s := range snapshots {
		before := lost
		for path, content := range s.files {
			c := new(clock)
			c.unix.Store(s.when)
			m := newMemory(1<<30, c.now)
			m.Retain(wide)
			restored, _, err := m.Persist(written(t, fastDir(t), content))
			if err != nil {
				t.Fatalf("%s: %v", s.at, err)
			}
			if restored.Lost != nil {
				lost++
			}
			ctx := gone(t)
			for i, u := range accepted[:s.accepted] {
				if m.Record(ctx, u) == nil {
					t.Fatalf("%s: proof %d was accepted again by %s (%+v)", s.at, i, path, restored)
				}
			}
			if path == s.inUse {
				if restored.Lost != nil {
					t.Fatalf("%s: lost by %s: %v", s.at, path, restored.Lost)
				}
				record(t, m, use(1e6, s.when), nil)
				record(t, m, withNonce(1e6+1, s.when-5, s.when), nil)
			}
			_ = m.Close()
		}
		if s.either && lost-before == len(s.files) {
			t.Fatalf("%s: no file has everything", s.at)
		}
	}
	t.Log("lost in", lost)
}

// Records, reloads, lifetimes, counts and the clock, all at once; and at any
// moment a kill.
func TestPersistAllAtOnce(t *testing.T) {
	c, one, two := newClock(), newPath(t), newPath(t)
	m := newMemory(1<<30, c.now)
	m.Retain(both)
	stop := reload(t, m, nil, one)
	c.advance(10 * time.Second)
	var done atomic.Bool
	var wait sync.WaitGroup
	var mu sync.Mutex
	var accepted []Use
	for worker := range 3 {
		wait.Go(func() {
			for n := 0; !done.Load() && n < 10_000; n++ {
				time.Sleep(10 * time.Microsecond)
				u := use(worker<<20+n, c.now().Unix()-int64(n%20))
				if n%2 == 0 {
					u = withNonce(worker<<20+n, c.now().Unix()-3600, c.now().Unix())
				}
				switch err := m.Record(t.Context(), u); {
				case err == nil:
					mu.Lock()
					accepted = append(accepted, u)
					mu.Unlock()
				case !errors.Is(err, ErrForgotten) && !errors.Is(err, ErrBeforeStart):
					t.Error(err)
				}
				if again := m.Record(t.Context(), u); again == nil {
					t.Error("accepted twice")
				}
			}
		})
	}
	wait.Go(func() {
		for n := 0; !done.Load(); n++ {
			release := m.Retain([]Lifetimes{short, both, wide}[n%3])
			time.Sleep(time.Millisecond)
			m.Entries()
			release()
			if n%10 == 0 {
				c.advance(time.Second)
			}
		}
	})
	for round := range 25 {
		path := []string{one, two, "", two, one}[round%5]
		stop = reload(t, m, stop, path)
		time.Sleep(5 * time.Millisecond)
		mu.Lock()
		before := slices.Clone(accepted)
		mu.Unlock()
		for _, j := range m.persistence.all() {
			j.mu.Lock() // an instant between two writes
			copied := killed(t, j.file.Name())
			j.mu.Unlock()
			restarted, restored := persisted(t, c, copied, wide)
			whole(t, restarted, restored)
			for _, u := range before {
				if restarted.Record(t.Context(), u) == nil {
					t.Fatalf("round %d: accepted again", round)
				}
			}
			closed(t, restarted)
		}
		reload(t, m, nil, []string{one, two}[round%2])() // fails
	}
	done.Store(true)
	wait.Wait()
	stop()
	if len(accepted) < 100 {
		t.Errorf("only %d were accepted", len(accepted))
	}
}

// inAnotherProcess runs this test alone, in a process of its own, with a file.
func inAnotherProcess(t *testing.T, path string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.timeout=1m")
	cmd.Env = append(os.Environ(), "REPLAY_TEST_FILE="+path)
	return cmd
}

func TestPersistInASecondProcess(t *testing.T) {
	if path := os.Getenv("REPLAY_TEST_FILE"); path != "" {
		_, _, err := NewMemory(10).Persist(path)
		fmt.Println("second:", err)
		return
	}
	c, path := newClock(), newPath(t)
	m, _ := persisted(t, c, path, short)
	c.advance(time.Second)
	record(t, m, use(1, epoch+1), nil)
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	text, err := inAnotherProcess(t, path).CombinedOutput()
	if err != nil || !strings.Contains(string(text), "second: "+path+" is open in another process: each needs a file of its own") {
		t.Errorf("%s %v", text, err)
	}
	if after, err := os.ReadFile(path); err != nil || !bytes.Equal(before, after) {
		t.Errorf("the file was changed: %v", err)
	}
	record(t, m, use(2, epoch+1), nil)
	closed(t, m)
	if text, err := inAnotherProcess(t, path).CombinedOutput(); err != nil || !strings.Contains(string(text), "second: <nil>") {
		t.Errorf("%s %v", text, err)
	}
}

// A process that is killed while it accepts proofs, and changes its file.
func TestPersistKilledProcess(t *testing.T) {
	start := time.Now().Add(-30 * time.Second)
	proof := func(n int) Use { return randomUse(uint64(n), start.Add(time.Duration(n%20)*time.Second)) }
	if path := os.Getenv("REPLAY_TEST_FILE"); path != "" {
		acceptUntilKilled(t, path)
		return
	}
	path := newPath(t)
	// A file that began long ago.
	m := NewMemory(1 << 30)
	m.now = func() time.Time { return start.Add(-time.Hour) }
	m.Retain(wide)
	if _, _, err := m.Persist(path); err != nil {
		t.Fatal(err)
	}
	closed(t, m)
	for round := range 20 {
		cmd := inAnotherProcess(t, path)
		cmd.Env = append(cmd.Env, fmt.Sprint("REPLAY_TEST_START=", start.Unix()), fmt.Sprint("REPLAY_TEST_ROUND=", round))
		output, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var used []int
		kill := 200 + rand.IntN(3000)
		lines := bufio.NewScanner(output)
		for lines.Scan() {
			var n int
			if _, err := fmt.Sscan(lines.Text(), &n); err == nil {
				used = append(used, n)
			}
			if len(used) == kill {
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		_ = cmd.Wait()
		if len(used) < kill {
			t.Fatalf("round %d: only %d were accepted", round, len(used))
		}
		m := NewMemory(1 << 30)
		m.Retain(wide)
		restored, _, err := m.Persist(path)
		if restored.Lost != nil {
			t.Fatal(restored, err)
		}
		for _, n := range used {
			requireError(t, m, proof(n), ErrReplayed)
		}
		requireError(t, m, proof(round<<24+15<<20), nil)
		closed(t, m)
	}
}

// acceptUntilKilled accepts proofs and says so, from several goroutines, while it
// changes to another file and back.
func acceptUntilKilled(t *testing.T, path string) {
	t.Helper()
	var unix int64
	var round int
	_, _ = fmt.Sscan(os.Getenv("REPLAY_TEST_START"), &unix)
	_, _ = fmt.Sscan(os.Getenv("REPLAY_TEST_ROUND"), &round)
	start := time.Unix(unix, 0)
	m := NewMemory(1 << 30)
	m.Retain(wide)
	reload(t, m, nil, path)
	go func() {
		for {
			reload(t, m, nil, path+".other")()
		}
	}()
	for worker := range 4 {
		go func() {
			for n := round<<24 + worker<<20; ; n++ {
				if err := m.Record(t.Context(), randomUse(uint64(n), start.Add(time.Duration(n%20)*time.Second))); err != nil {
					t.Error(err)
				}
				_, _ = os.Stdout.WriteString(fmt.Sprintln(n))
			}
		}()
	}
	time.Sleep(30 * time.Second)
}
