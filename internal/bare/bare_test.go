package bare

import "testing"

func TestVerification(t *testing.T) {
	for algorithm := range signed {
		verify, err := Verification(algorithm)
		if err != nil || !verify() {
			t.Errorf("%s: does not verify: %v", algorithm, err)
		}
	}
	if _, err := Verification("none"); err == nil {
		t.Error("an algorithm that there is not is verified by")
	}
}
