package main

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"drystone.example/drystone/backend/api/schema"
	"drystone.example/drystone/backend/model"
)

// told tells of tasks what it is asked to.
type told func() ([]schema.Task, error)

func (f told) Tasks(context.Context) (schema.List[schema.Task], error) {
	tasks, err := f()
	return schema.ListOf(tasks), err
}

func (told) CancelTask(context.Context, model.TaskID) error { return nil }

// Whoever waits for a task waits as long as it runs, also over a node that does not
// answer for a while, and not for ever for one that nobody knows any more.
func TestWaitForTask(t *testing.T) {
	running := []schema.Task{{ID: 7, State: schema.TaskRunning}}
	away := model.Errorf(model.Unavailable, "the node is away")
	for _, test := range []struct {
		name string
		then []schema.Task // after it ran for ten minutes and was away for half a one
		err  error
		want bool
	}{
		{"done", []schema.Task{{ID: 7, State: schema.TaskDone}}, nil, true},
		{"failed", []schema.Task{{ID: 7, State: schema.TaskFailed, Error: "it is so"}}, nil, false},
		{"its-node-was-restarted", []schema.Task{{ID: 8, State: schema.TaskRunning}}, nil, false},
		{"away-for-good", nil, away, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				list := told(func() ([]schema.Task, error) {
					switch past := time.Since(began); {
					case past < 10*time.Minute:
						return running, nil
					case past < 10*time.Minute+30*time.Second:
						return nil, away
					}
					return test.then, test.err
				})
				ctx, stop := context.WithTimeout(t.Context(), time.Hour)
				defer stop()
				_, err := ended(ctx, list, running[0])
				if ctx.Err() != nil || (err == nil) != test.want {
					t.Errorf("after %v: %v", time.Since(began), err)
				}
			})
		})
	}
}
