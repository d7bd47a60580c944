package agent

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"drystone.example/drystone/backend/model"
)

// tasksKept bounds how many ended tasks a node remembers.
const tasksKept = 100

// A Task is a piece of long work on this node, as it is now.
type Task struct {
	ID        model.TaskID `json:"id"`
	Kind      string       `json:"kind"`   // such as image.import or vm.create
	Object    string       `json:"object"` // name of what it makes or changes
	Done      model.Bytes  `json:"done"`
	Total     model.Bytes  `json:"total"` // zero: not known
	Running   bool         `json:"running"`
	Cancelled bool         `json:"cancelled"`
	Error     string       `json:"error"` // one sentence
	Started   time.Time    `json:"started"`
	Ended     time.Time    `json:"ended,omitzero"`
}

// Tasks knows the long work of one node. It is safe for concurrent use. The zero
// Tasks is ready.
type Tasks struct {
	mu  sync.Mutex // guards all; nothing blocks under it
	all map[model.TaskID]*Work
}

// A Work is one running task, in the hands of who does it.
type Work struct {
	tasks  *Tasks
	cancel context.CancelFunc
	done   atomic.Int64
	total  atomic.Int64
	task   Task // guarded by tasks.mu
}

// Begin records a task and returns the context it runs under, which ends when
// somebody cancels it. Whoever began it ends it.
func (t *Tasks) Begin(ctx context.Context, kind, object string) (context.Context, *Work) {
	ctx, cancel := context.WithCancel(ctx)
	w := &Work{tasks: t, cancel: cancel, task: Task{
		ID: model.NewID[model.TaskID](), Kind: kind, Object: object, Running: true, Started: time.Now(),
	}}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.all == nil {
		t.all = map[model.TaskID]*Work{}
	}
	t.all[w.task.ID] = w
	t.forget()
	return ctx, w
}

// forget drops the oldest ended tasks above the bound. The lock is held.
func (t *Tasks) forget() {
	ended := slices.DeleteFunc(slices.Collect(maps.Values(t.all)), func(w *Work) bool { return w.task.Running })
	slices.SortFunc(ended, func(a, b *Work) int { return a.task.Ended.Compare(b.task.Ended) })
	for len(ended) > tasksKept {
		delete(t.all, ended[0].task.ID)
		ended = ended[1:]
	}
}

// Progress says how far the work is, in bytes; a total of zero is not known.
func (w *Work) Progress(done, total model.Bytes) {
	w.done.Store(int64(done))
	w.total.Store(int64(total))
}

// ID names the task.
func (w *Work) ID() model.TaskID { return w.task.ID }

// now is the task as it is.
func (w *Work) now() Task {
	w.tasks.mu.Lock()
	defer w.tasks.mu.Unlock()
	return w.task
}

// End records how the work ended.
func (w *Work) End(err error) {
	w.cancel()
	w.tasks.mu.Lock()
	defer w.tasks.mu.Unlock()
	w.task.Running, w.task.Ended = false, time.Now()
	if err == nil {
		return
	}
	w.task.Cancelled = errors.Is(err, context.Canceled)
	w.task.Error = Sentence(err)
}

// Cancel asks a running task to stop. It reports whether there is one.
func (t *Tasks) Cancel(id model.TaskID) bool {
	t.mu.Lock()
	w := t.all[id]
	running := w != nil && w.task.Running
	t.mu.Unlock()
	if running {
		w.cancel()
	}
	return running
}

// List returns the tasks, newest first.
func (t *Tasks) List() []Task {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := make([]Task, 0, len(t.all))
	for _, w := range t.all {
		task := w.task
		task.Done, task.Total = model.Bytes(w.done.Load()), model.Bytes(w.total.Load())
		out = append(out, task)
	}
	slices.SortFunc(out, func(a, b Task) int {
		return cmp.Or(b.Started.Compare(a.Started), cmp.Compare(a.ID, b.ID))
	})
	return out
}

// Sentence is what a person may read of an error: the text of a coded one, and
// for any other only that it is internal.
func Sentence(err error) string {
	if e, ok := errors.AsType[*model.Error](err); ok {
		return e.Text
	}
	if errors.Is(err, context.Canceled) {
		return "cancelled"
	}
	return "an internal error; the node's log has the details"
}
