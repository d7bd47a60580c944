package command

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"drystone.example/drystone/backend/model"
)

var update = flag.Bool("update", false, "write golden files that are not there yet")

var noon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

func secret(s string) Secret { return Keep(model.NewSecret(s)) }

// examples has one command of each kind, with every field set.
func examples() []Command {
	seconds := int64(600)
	name, cpus, memory := "www", 4, model.Bytes(1<<30)
	boot := &model.Boot{
		Kernel: model.FileRef{Name: "k", SHA256: "ab", Size: 1},
		Initrd: model.FileRef{Name: "i", SHA256: "cd", Size: 2}, Append: "quiet",
	}
	node := model.Node{
		ID: 1, Name: "n1", Address: "10.0.0.1", API: "https://n1", Serial: "01", Version: "1",
		Voter: true, Joined: noon,
	}
	owner := UserCreate{ID: 2, Name: "kim", Role: model.Owner, PasswordHash: secret("phc")}
	cut := model.Stamp{Generation: 3, Number: 4}
	disks := []model.VMDisk{{Volume: 5}}
	return []Command{
		ClusterCreate{ID: 6, Name: "wall", CA: "pem", CAKey: secret("sealed"), GossipKey: secret("key"), Node: node, Owner: owner},
		TokenCreate{Token: model.JoinToken{ID: "t", SecretHash: "ab", Name: "n", Uses: 1, Expires: noon, Created: noon}},
		TokenRedeem{Token: "t", SecretHash: "ab", KeyHash: "cd", Node: node},
		TokenDelete{ID: "t"},
		NodeUpdate{Node: 1, Address: "a", API: "b", Version: "c", Serial: "d"},
		NodeVoter{Node: 1, Voter: true},
		NodeRemove{Node: 1, Lost: true},
		DiskAdd{Disk: model.Disk{ID: 7, Node: 1, Path: "/d", State: model.DiskOnline, Size: 8, Error: "e", Added: noon}},
		DiskUpdate{Disk: 7, State: model.DiskFailed, Path: "/e", Size: 9, Error: "e"},
		VolumeCreate{ID: 5, Name: "data", Use: model.VolumeImage, Size: 10, Copies: 2, Columns: []model.Column{
			{Members: []model.Member{{Disk: 7, State: model.Active}, {Disk: 8, State: model.Stale, Cutoff: cut}}},
		}},
		VolumeResize{Volume: 5, Size: 11},
		VolumeDelete{Volume: 5},
		VolumeAcquire{Volume: 5, Node: 1, Purpose: model.ForGuest, Generation: 12, Revision: 13},
		VolumeRelease{Volume: 5, Node: 1, Generation: 12},
		VolumeMembers{Volume: 5, Generation: 12, Revision: 13, Changes: []model.MemberChange{
			{Column: 1, Disk: 7, State: model.Stale, Cutoff: cut}, {Column: 2, Disk: 8},
		}},
		VMCreate{ID: 14, Name: "web", CPUs: 1, Memory: 2, Disks: disks, Boot: boot},
		VMUpdate{VM: 14, Name: &name, CPUs: &cpus, Memory: &memory, Disks: &disks, Boot: boot},
		VMPower{VM: 14, Power: model.PowerOn, Node: 1},
		VMPlace{VM: 14, Node: 1, Expected: 2},
		VMReport{VM: 14, Node: 1, State: model.VMFailed, Reason: "r"},
		VMDelete{VM: 14, Disks: true},
		owner,
		UserPassword{User: 2, PasswordHash: secret("phc"), Keep: "ab"},
		UserDelete{User: 2},
		SessionCreate{TokenHash: "ab", User: 2, Expires: noon, Address: "10.0.0.9"},
		SessionDelete{TokenHash: "ab"},
		SessionsPrune{},
		SnapshotCreate{Name: "monday", Cuts: []SnapshotCut{
			{ID: 15, Volume: 5, Holder: 1, Generation: 12, Revision: 13}, {ID: 16, Volume: 6},
		}},
		SnapshotDelete{Snapshot: 15},
		SnapshotRevert{Volume: 5, Snapshot: 15, Keep: 17, KeepName: "before", Cancel: true},
		VolumeTended{Volume: 5, Generation: 12, Tended: model.Tended{Trimmed: 13, Rests: 14, Begun: 15, Reverted: 16}},
		VolumeClone{
			ID: 17, Name: "twin", Use: model.VolumeDisk, Volume: 5, Snapshot: 15,
			Holder: 1, Generation: 12, Revision: 13,
		},
		VolumeDetach{Volume: 17, Generation: 1},
		VolumeMove{Volume: 5, Revision: 13, Moves: []model.Move{{Column: 1, From: 7, To: 8}, {Column: 2, From: 9}}},
		DiskDrain{Disk: 7, Cancel: true},
		DiskRemove{Disk: 7},
		ClusterSet{Balance: new(bool), RebuildAfter: &seconds},
		VolumeScrubbed{Volume: 5, Scrub: model.VolumeScrub{Ended: noon, Compared: 1, Skipped: 2, Different: 3, Diverged: 4}},
		DiskFound{Disk: 7, Node: 1, Claims: 2, Path: "/dev/sdb", Journal: 3, Error: "e", Gone: true, Twin: true},
		VMMigrate{VM: 14, Task: 17, From: 1, To: 2},
		VMMigrateEnd{VM: 14, Task: 17, From: 1, Moved: true},
		KeyRotate{Key: secret("key")},
		CARotate{Epoch: 3, CA: "pem", CAKey: secret("sealed"), Heritage: "older"},
		TrustStep{Keys: 4, Epoch: 5, Except: []model.NodeID{1}},
		NodeTrust{Node: 1, Trust: model.Trust{Keys: 4, Epoch: 5}},
		NodeDrain{Node: 1, Cancel: true},
		NetworkCreate{Network: model.Network{
			ID: 18, Name: "lan", Type: model.NetworkBridge, Bridge: "br0", VLAN: 7, Created: noon,
			Nodes: []model.NodeBridge{{Node: 1, Bridge: "br1"}},
		}},
		NetworkUpdate{Network: 18, Name: &name, Bridge: &name, Nodes: &[]model.NodeBridge{{Node: 1, Bridge: "br1"}}, VLAN: &cpus},
		NetworkDelete{Network: 18},
		VMConsole{VM: 14, Console: "screen", Writes: true, Closed: true},
	}
}

func envelope(c Command) Envelope {
	return Envelope{
		Request: "r1", At: noon, Command: c,
		Actor: model.Actor{User: "kim", UserID: 2, Role: model.Owner, Address: "10.0.0.9", Request: "x"},
	}
}

// Every kind that was ever written can be read, as what it was. The file of a
// kind is written once, with -update, and then stays.
func TestGolden(t *testing.T) {
	all := examples()
	if len(all) != len(formats) {
		t.Errorf("there are %d examples for %d kinds", len(all), len(formats))
	}
	for i, c := range all {
		t.Run(c.Kind().String(), func(t *testing.T) {
			if i > 0 && c.Kind() <= all[i-1].Kind() {
				t.Errorf("kind %d comes after kind %d", c.Kind(), all[i-1].Kind())
			}
			data, err := Encode(envelope(c))
			if err != nil {
				t.Fatalf("Encode: %v", err)
			}
			path := filepath.Join("testdata", fmt.Sprintf("%03d-%d", c.Kind(), Version))
			if _, err := os.Stat(path); *update && os.IsNotExist(err) {
				if err := os.WriteFile(path, data, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			golden, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(golden, data) {
				t.Errorf("it is now written as\n%s\nand was\n%s", data, golden)
			}
			got, err := Decode(golden)
			if err != nil {
				t.Fatalf("Decode: %v", err)
			}
			again, err := Encode(got)
			if err != nil || !bytes.Equal(again, golden) {
				t.Errorf("read and written again it is\n%s, %v\nand was\n%s", again, err, golden)
			}
			if got.Command.Object() != c.Object() || got.Command.Object() == "" {
				t.Errorf("its object is %q, was %q", got.Command.Object(), c.Object())
			}
		})
	}
}

func TestDecodeRefuses(t *testing.T) {
	good, err := Encode(envelope(TokenDelete{ID: "t"}))
	if err != nil {
		t.Fatal(err)
	}
	change := func(at int, b byte) []byte {
		p := bytes.Clone(good)
		p[at] = b
		return p
	}
	tests := []struct {
		name string
		p    []byte
		want string
	}{
		{"nothing", nil, "0 bytes"},
		{"a kind to come", change(0, 200), "command 200 is not known"},
		{"a version to come", change(1, 2), "version 2"},
		{"cut", good[:len(good)-3], "read json"},
		{"something behind", append(bytes.Clone(good), '!'), "after the json"},
		{"a field to come", bytes.Replace(good, []byte(`"request"`), []byte(`"reQuesT2"`), 1), "unknown field"},
		{"a field of the body to come", bytes.Replace(good, []byte(`{"id"`), []byte(`{"x":1,"id"`), 1), "unknown field"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := Decode(test.p)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("Decode: got %v, want an error with %q", err, test.want)
			}
		})
	}
}

func TestEncodeRefuses(t *testing.T) {
	large := envelope(TokenDelete{ID: strings.Repeat("x", MaxSize)})
	unnamed := envelope(TokenDelete{ID: "t"})
	unnamed.Request = ""
	long := envelope(TokenDelete{ID: "t"})
	long.Request = strings.Repeat("x", MaxRequest+1)
	for name, e := range map[string]Envelope{
		"too large": large, "no request": unnamed, "long request": long, "no command": {Request: "r"},
	} {
		if _, err := Encode(e); model.CodeOf(err) != model.Invalid {
			t.Errorf("%s: got %v, want %s", name, err, model.Invalid)
		}
	}
}

// A secret is written by the codec and by nothing else.
func TestSecretsStayIn(t *testing.T) {
	c := UserCreate{Name: "kim", PasswordHash: secret("hush")}
	text, err := json.Marshal(c)
	if err != nil || !strings.Contains(string(text), "hush") {
		t.Errorf("the codec wrote %s, %v", text, err)
	}
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "command", c, "secret", c.PasswordHash)
	fmt.Fprintf(&log, "%v %+v %#v %s", c, c, c, c.PasswordHash)
	if strings.Contains(log.String(), "hush") {
		t.Errorf("a secret was logged: %s", log.String())
	}
}

// Whatever is decoded can be encoded, to the same effect; nothing crashes.
func FuzzDecode(f *testing.F) {
	for _, c := range examples() {
		data, err := Encode(envelope(c))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		e, err := Decode(p)
		if err != nil {
			return
		}
		data, err := Encode(e)
		if err != nil {
			return // a request that nobody would have encoded
		}
		again, err := Decode(data)
		if err != nil {
			t.Fatalf("Decode of what was encoded: %v\n%s", err, data)
		}
		third, err := Encode(again)
		if err != nil || !bytes.Equal(data, third) {
			t.Errorf("encoded again: %v\n%s\nwas\n%s", err, third, data)
		}
	})
}
