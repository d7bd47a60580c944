package libvirtd

import (
	"bytes"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"drystone.example/drystone/backend/model"
)

// maxSocketPath is the most bytes the path of a unix socket has, its closing zero
// not counted.
const maxSocketPath = 107

// folders are the folders of libvirt and where, under a node's folder,
// stands what it sees there instead.
var folders = []bind{
	{"libvirt/etc", "/etc/libvirt"},
	{"libvirt/lib", "/var/lib/libvirt"},
	{"libvirt/log", "/var/log/libvirt"},
	{"libvirt/cache", "/var/cache/libvirt"},
	{"run/libvirt", "/run/libvirt"},
}

// A bind shows the folder from at the place to.
type bind struct{ from, to string }

// paths are the places of one node's libvirt, all absolute.
type places struct {
	dir    string
	state  string
	out    string // what the daemons said before they had a log
	log    string
	socket string
	pids   string
}

func placesOf(dir string) (places, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return places{}, fmt.Errorf("place libvirt: %w", err)
	}
	return places{
		dir:    abs,
		state:  filepath.Join(abs, "libvirt/state.json"),
		out:    filepath.Join(abs, "libvirt/out"),
		log:    filepath.Join(abs, "libvirt/log/libvirtd.log"),
		socket: filepath.Join(abs, "run/libvirt/libvirt-sock"),
		pids:   filepath.Join(abs, "run/libvirt/qemu"),
	}, nil
}

func (p places) result(s state) *Daemon {
	return &Daemon{
		URI:      "qemu+unix:///system?socket=" + p.socket,
		PIDs:     p.pids,
		Log:      p.log,
		Libvirtd: s.Libvirtd,
		Virtlogd: s.Virtlogd,
	}
}

// config is where a daemon finds its settings, as seen inside the namespace.
func (p places) config(daemon string) string { return "/etc/libvirt/" + daemon + ".conf" }

func (p places) pidFile(daemon string) string {
	return filepath.Join(p.dir, "libvirt", daemon+".pid")
}

func (p places) binds() []bind {
	binds := make([]bind, 0, len(folders))
	for _, f := range folders {
		binds = append(binds, bind{filepath.Join(p.dir, f.from), f.to})
	}
	return binds
}

// check refuses a folder in which guests could not run, before anything is made.
func (p places) check() error {
	if os.Geteuid() != 0 {
		return model.Errorf(model.Denied, "a libvirtd for guests needs root")
	}
	if len(p.socket) > maxSocketPath {
		return model.Errorf(model.Invalid,
			"the path %s is %d bytes long; a socket's has at most %d: choose a shorter folder",
			p.socket, len(p.socket), maxSocketPath)
	}
	if strings.ContainsAny(p.dir, "?#%&\\\"' \t\n") {
		return model.Errorf(model.Invalid, "the folder %q cannot stand in a URI", p.dir)
	}
	for _, f := range folders {
		if strings.HasPrefix(p.dir+"/", f.to+"/") {
			return model.Errorf(model.Invalid, "the folder %s lies in libvirt's own %s", p.dir, f.to)
		}
	}
	u, err := user.Lookup(User)
	if err != nil {
		return fmt.Errorf("look for the user of guests: %w", err)
	}
	return passable(p.dir, u)
}

// passable says which folder on the way to dir, if any, a user cannot pass.
// Folders that are not there yet will be made passable.
func passable(dir string, u *user.User) error {
	for ; dir != "/"; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if os.IsNotExist(err) {
			continue
		}
		if err != nil {
			return fmt.Errorf("look at the node's folder: %w", err)
		}
		st, ok := info.Sys().(*syscall.Stat_t)
		if !ok || !info.IsDir() {
			return model.Errorf(model.Invalid, "%s is not a folder", dir)
		}
		mode, bit := info.Mode().Perm(), os.FileMode(0o001)
		switch {
		case strconv.FormatUint(uint64(st.Uid), 10) == u.Uid:
			bit = 0o100
		case strconv.FormatUint(uint64(st.Gid), 10) == u.Gid:
			bit = 0o010
		}
		if mode&bit == 0 {
			return model.Errorf(model.Invalid,
				"guests run as %s, who may not pass the folder %s: choose another, or chmod o+x it",
				u.Username, dir)
		}
	}
	return nil
}

// prepare makes the folders and the daemons' settings.
func (p places) prepare(uuid string) error {
	for _, b := range p.binds() {
		if err := os.MkdirAll(b.from, 0o755); err != nil { //nolint:gosec // QEMU's user passes
			return fmt.Errorf("make libvirt's folders: %w", err)
		}
		if err := os.MkdirAll(b.to, 0o755); err != nil { //nolint:gosec // as the package has it
			return fmt.Errorf("make libvirt's folders: %w", err)
		}
	}
	if err := WriteSettings(filepath.Join(p.dir, "libvirt/etc"), uuid); err != nil {
		return err
	}
	return nil
}

// WriteSettings writes, into the folder that will be /etc/libvirt, the settings of a host
// with that UUID on which there may be no systemd. It may be called again.
func WriteSettings(dir, uuid string) error {
	for name, settings := range settingsOf(uuid) {
		if err := os.WriteFile(filepath.Join(dir, name), settings.bytes(), 0o600); err != nil {
			return fmt.Errorf("write libvirt's settings: %w", err)
		}
	}
	return nil
}

// settings is one of libvirt's configuration files, line by line.
type settings []struct {
	key   string
	value any // a string, an int or strings
}

func (s settings) bytes() []byte {
	var b bytes.Buffer
	for _, line := range s {
		switch v := line.value.(type) {
		case int:
			fmt.Fprintf(&b, "%s = %d\n", line.key, v)
		case []string:
			fmt.Fprintf(&b, "%s = [%s]\n", line.key, strings.Join(v, ", "))
		default:
			fmt.Fprintf(&b, "%s = \"%s\"\n", line.key, v)
		}
	}
	return b.Bytes()
}

func settingsOf(uuid string) map[string]settings {
	return map[string]settings{
		"libvirtd.conf": {
			{"host_uuid", uuid},
			{"unix_sock_group", "root"},
			{"unix_sock_ro_perms", "0700"},
			{"unix_sock_rw_perms", "0700"},
			{"auth_unix_ro", "none"},
			{"auth_unix_rw", "none"},
			{"log_outputs", "3:file:/var/log/libvirt/libvirtd.log"},
		},
		"qemu.conf": {
			{"user", User},
			{"group", "kvm"},
			{"security_driver", "none"}, // no profile fits a node's folder anywhere
			{"seccomp_sandbox", 1},
			{"namespaces", []string{}},         // the node's is enough
			{"cgroup_controllers", []string{}}, // there may be no systemd to ask
			{"remember_owner", 0},
			{"stdio_handler", "logd"},
		},
		"virtlogd.conf": {
			{"log_outputs", "3:file:/var/log/libvirt/virtlogd.log"},
			{"max_size", 1 << 20}, // of a guest's serial log, and as much again when it is rolled
			{"max_backups", 1},
		},
	}
}
