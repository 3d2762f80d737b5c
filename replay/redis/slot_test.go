package redis

import "testing"

// As `CLUSTER KEYSLOT` answers them.
func TestSlotOf(t *testing.T) {
	for key, want := range map[string]uint16{
		"123456789":            0x31c3 % slots,
		"foo":                  12182,
		"{user1000}.following": 3443,
		"{user1000}.followers": 3443,
		"foo{}{bar}":           8363,
		"foo{{bar}}zap":        4015,
		"foo{bar}{zap}":        5061,
		"foo{bar":              15278,
		"":                     0,
	} {
		if got := slotOf(key); got != want {
			t.Errorf("%q: %d, want %d", key, got, want)
		}
	}
}
