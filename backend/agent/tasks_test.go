package agent

import (
	"context"
	"errors"
	"testing"

	"drystone.example/drystone/backend/model"
)

func TestTaskCancel(t *testing.T) {
	var tasks Tasks
	ctx, w := tasks.Begin(t.Context(), "image.import", "debian")
	w.Progress(10, 100)
	if got := tasks.List(); len(got) != 1 || !got[0].Running || got[0].Done != 10 || got[0].Total != 100 {
		t.Fatalf("List = %+v", got)
	}
	if tasks.Cancel(model.TaskID(1)) {
		t.Error("a task that is not there was cancelled")
	}
	if !tasks.Cancel(w.ID()) {
		t.Fatal("a running task was not cancelled")
	}
	<-ctx.Done()
	w.End(ctx.Err())
	if got := tasks.List()[0]; got.Running || !got.Cancelled {
		t.Errorf("after cancel: %+v", got)
	}
	if tasks.Cancel(w.ID()) {
		t.Error("an ended task was cancelled")
	}
}

// Ended tasks are bounded, running ones are never forgotten, and no internal text
// is shown.
func TestTasksBounded(t *testing.T) {
	var tasks Tasks
	_, running := tasks.Begin(t.Context(), "vm.create", "kept")
	for range 2 * tasksKept {
		_, w := tasks.Begin(context.Background(), "vm.create", "x")
		w.End(errors.New("secret path /root/x"))
	}
	got := tasks.List()
	if len(got) > tasksKept+2 {
		t.Errorf("%d tasks are kept", len(got))
	}
	found := false
	for _, task := range got {
		found = found || task.ID == running.ID()
		if !task.Running && (task.Error == "" || task.Error == "secret path /root/x") {
			t.Fatalf("error of an ended task: %q", task.Error)
		}
	}
	if !found {
		t.Error("a running task was forgotten")
	}
}
