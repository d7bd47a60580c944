package model

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
)

// An identifier survives its text, and nothing else reads as one.
func TestIDText(t *testing.T) {
	for range 1000 {
		id := NewID[VolumeID]()
		got, err := ParseID[VolumeID](id.String())
		if err != nil || got != id {
			t.Fatalf("ParseID(%s) = %v, %v", id, got, err)
		}
	}
	for _, bad := range []string{"", "0", "zzzzzzzzzzzzz", "00000000000ilo", "0000000000000u", "000000000000U", "000000000000i"} {
		if id, err := ParseID[NodeID](bad); CodeOf(err) != Invalid {
			t.Errorf("ParseID(%q) = %v, %v; want %s", bad, id, err, Invalid)
		}
	}
}

func TestIDJSON(t *testing.T) {
	type object struct {
		ID     VolumeID            `json:"id"`
		Holder NodeID              `json:"holder,omitzero"`
		Sizes  map[DiskID]struct{} `json:"sizes"`
	}
	in := object{ID: 1, Sizes: map[DiskID]struct{}{2: {}}}
	text, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"id":"0000000000001","sizes":{"0000000000002":{}}}`; string(text) != want {
		t.Errorf("json = %s, want %s", text, want)
	}
	var out object
	if err := json.Unmarshal(text, &out); err != nil || out.ID != 1 || len(out.Sizes) != 1 {
		t.Errorf("read back %+v, %v", out, err)
	}
}

func TestValidateName(t *testing.T) {
	for _, good := range []string{"a", "web-1", "Db_2.old", "9", strings.Repeat("x", MaxName)} {
		if err := ValidateName("vm", good); err != nil {
			t.Errorf("ValidateName(%q) = %v", good, err)
		}
	}
	for _, bad := range []string{"", "-a", ".a", "a b", "a/b", "ä", "<script>", "a\n", strings.Repeat("x", MaxName+1)} {
		if err := ValidateName("vm", bad); CodeOf(err) != Invalid {
			t.Errorf("ValidateName(%q) = %v, want %s", bad, err, Invalid)
		}
	}
}

func TestErrorCode(t *testing.T) {
	err := fmt.Errorf("attach: %w", Errorf(Fenced, "volume is held elsewhere: %w", io.EOF))
	if CodeOf(err) != Fenced || !errors.Is(err, io.EOF) {
		t.Errorf("CodeOf(%v) = %s", err, CodeOf(err))
	}
	if CodeOf(io.EOF) != Internal || CodeOf(nil) != "" {
		t.Error("an error without a code is internal, and none has none")
	}
}

// A secret leaks through no verb and no encoder.
func TestSecret(t *testing.T) {
	s := NewSecret("canary")
	text, err := json.Marshal(map[string]any{"s": s})
	if err != nil {
		t.Fatal(err)
	}
	all := fmt.Sprintf("%v %+v %#v %s %q %s", s, s, s, s, s, text)
	if strings.Contains(all, "canary") || s.Reveal() != "canary" {
		t.Errorf("secret printed as %s", all)
	}
}

func TestStampOrder(t *testing.T) {
	a, b := Stamp{1, 9}, Stamp{2, 1}
	if !b.After(a) || a.After(b) || a.After(a) || a.Compare(a) != 0 {
		t.Error("stamps go by generation, then by number")
	}
}
