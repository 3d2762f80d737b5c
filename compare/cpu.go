//go:build linux

package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

// clock reads one of the system's clocks.
func clock(id int) (time.Duration, error) {
	var at syscall.Timespec
	if _, _, errno := syscall.RawSyscall(syscall.SYS_CLOCK_GETTIME, uintptr(id), uintptr(unsafe.Pointer(&at)), 0); errno != 0 {
		return 0, errno
	}
	return time.Duration(at.Nano()), nil
}

// threadTime is the processor time of the calling thread.
func threadTime() (time.Duration, error) { return clock(3) } // CLOCK_THREAD_CPUTIME_ID

// processorTime is what a process and all its descendants have taken, those that
// have ended included. It is utime and stime of /proc/PID/stat, to the nanosecond
// for those that live: a process's own clock has the number ^PID<<3|2
// (clock_getcpuclockid).
func processorTime(root int) (time.Duration, error) {
	parents, ended, err := processes()
	if err != nil {
		return 0, err
	}
	var sum time.Duration
	for pid := range parents {
		if !descends(pid, root, parents) {
			continue
		}
		own, err := clock(^pid<<3 | 2)
		if err != nil {
			return 0, fmt.Errorf("process %d: %w", pid, err)
		}
		sum += own + ended[pid]
	}
	return sum, nil
}

func descends(pid, root int, parents map[int]int) bool {
	for ; pid != 0; pid = parents[pid] {
		if pid == root {
			return true
		}
	}
	return false
}

// tick is the unit of times in /proc: 1/USER_HZ, which is the same everywhere.
const tick = 10 * time.Millisecond

// processes returns each process's parent, and what its ended children have taken.
func processes() (parents map[int]int, ended map[int]time.Duration, err error) {
	files, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, nil, err
	}
	parents, ended = make(map[int]int), make(map[int]time.Duration)
	for _, file := range files {
		stat, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended meanwhile
		}
		// what follows the name, which may have spaces: state, ppid ...
		fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		parents[pid], _ = strconv.Atoi(fields[1])
		user, _ := strconv.Atoi(fields[13])
		system, _ := strconv.Atoi(fields[14])
		ended[pid] = time.Duration(user+system) * tick
	}
	return parents, ended, nil
}

// residentBytes is what a process has in memory.
func residentBytes(pid int) (float64, error) {
	statm, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0, err
	}
	pages, err := strconv.Atoi(strings.Fields(string(statm))[1])
	return float64(pages * os.Getpagesize()), err
}

// stolenTime is how long this machine's processors wanted to run and were not let, by
// whoever shares them with it: one virtual machine among others sees that (proc_stat(5)).
func stolenTime() time.Duration {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	all, _, _ := strings.Cut(string(text), "\n")
	const steal = 8 // after the name: user, nice, system, idle, iowait, irq, softirq
	fields := strings.Fields(all)
	if len(fields) <= steal {
		return 0
	}
	ticks, _ := strconv.Atoi(fields[steal])
	return time.Duration(ticks) * tick
}

// loadAverage is what uptime says: it tells how much else the machine does.
func loadAverage() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	return strings.Join(strings.Fields(string(text))[:3], " ")
}
