//go:build !unix

package beside

import "time"

var began = time.Now()

// processorTime is by the clock, where what a process has taken is not to be had.
func processorTime() time.Duration { return time.Since(began) }
