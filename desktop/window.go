package desktop

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/wailsapp/wails/v2"
	"github.com/wailsapp/wails/v2/pkg/logger"
	"github.com/wailsapp/wails/v2/pkg/options"
	"github.com/wailsapp/wails/v2/pkg/options/assetserver"
	"github.com/wailsapp/wails/v2/pkg/options/linux"
	"github.com/wailsapp/wails/v2/pkg/options/windows"
	"github.com/wailsapp/wails/v2/pkg/runtime"

	"drystone.example/drystone/desktop/gateway"
	"drystone.example/drystone/frontend"
)

// origins are where the window's page says it comes from: the first on Linux and
// macOS, the second on Windows.
var origins = []string{"wails://wails", "http://wails.localhost"}

// A Window is what the page may call of Go. It is kept as small as this: a bound
// method runs with the user's rights, so everything that can be a request to the
// gateway is one.
type Window struct {
	gateway *gateway.Gateway
}

// A Boot is what the page needs to start.
type Boot struct {
	Gateway string `json:"gateway"` // URL of the gateway
	Token   string `json:"token"`   // of this launch
}

// Boot tells the page where the gateway is.
func (w *Window) Boot() Boot {
	return Boot{Gateway: w.gateway.URL(), Token: w.gateway.Token()}
}

// window opens the window and runs the gateway behind it until it is closed.
func window(ctx context.Context, c gateway.Config, dir string, log *slog.Logger) error {
	if err := prepareEnvironment(os.Getenv, os.Setenv); err != nil {
		return err
	}
	c.Origins = origins
	g, err := gateway.Listen(ctx, c)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	served := make(chan error, 1)
	go func() { served <- g.Run(ctx) }()

	closed := make(chan struct{})
	again := make(chan struct{}, 1)
	var attending sync.WaitGroup
	app := options.App{
		Title:            "Drystone",
		Width:            1360,
		Height:           860,
		MinWidth:         380,
		MinHeight:        480,
		BackgroundColour: options.NewRGB(16, 38, 43),
		AssetServer: &assetserver.Options{Handler: frontend.Handler(frontend.Policy{
			Connect: []string{g.URL(), "ws://" + g.Address()},
		})},
		Bind:               []any{&Window{gateway: g}},
		Logger:             wailsLog{log},
		LogLevel:           logger.WARNING,
		LogLevelProduction: logger.WARNING,
		Linux: &linux.Options{
			ProgramName:      "drystone",
			WebviewGpuPolicy: linux.WebviewGpuPolicyOnDemand,
		},
		Windows: &windows.Options{WebviewUserDataPath: filepath.Join(dir, "webview")},
		OnStartup: func(appCtx context.Context) {
			attending.Go(func() { attend(ctx, appCtx, again, closed) })
		},
		SingleInstanceLock: &options.SingleInstanceLock{
			UniqueId: "drystone-" + digest(dir),
			// What a second start passes is not trusted, and not used.
			OnSecondInstanceLaunch: func(options.SecondInstanceData) {
				select {
				case again <- struct{}{}:
				default:
				}
			},
		},
	}
	err = wails.Run(&app)
	close(closed)
	attending.Wait()
	cancel()
	return errors.Join(err, <-served)
}

// quitEvery is how often a window that has been told to close is told again.
const quitEvery = 500 * time.Millisecond

// attend sees to it that the window closes when the program is told to end, and
// brings it to the front when the program is started a second time. It ends with
// the window.
//
// Wails closes the window on signals itself, but what it does before the window's
// main loop runs is lost.
func attend(ctx, app context.Context, again, closed <-chan struct{}) {
	for {
		select {
		case <-ctx.Done():
			tick := time.NewTicker(quitEvery)
			defer tick.Stop()
			for {
				select {
				case <-tick.C:
					runtime.Quit(app)
				case <-closed:
					return
				}
			}
		case <-again:
			runtime.WindowUnminimise(app)
			runtime.Show(app)
		case <-closed:
			return
		}
	}
}

func digest(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:6])
}

// wailsLog hands Wails' messages to slog.
type wailsLog struct{ log *slog.Logger }

func (l wailsLog) Print(m string)   { l.log.Debug("wails", "message", m) }
func (l wailsLog) Trace(m string)   { l.log.Debug("wails", "message", m) }
func (l wailsLog) Debug(m string)   { l.log.Debug("wails", "message", m) }
func (l wailsLog) Info(m string)    { l.log.Debug("wails", "message", m) }
func (l wailsLog) Warning(m string) { l.log.Warn("wails", "message", m) }
func (l wailsLog) Error(m string)   { l.log.Error("wails", "message", m) }
func (l wailsLog) Fatal(m string)   { l.log.Error("wails", "message", m) }

// setAll sets variables of the environment that are not set yet.
func setAll(get func(string) string, set func(string, string) error, pairs map[string]string) error {
	for name, value := range pairs {
		if get(name) != "" {
			continue
		}
		if err := set(name, value); err != nil {
			return fmt.Errorf("set %s: %w", name, err)
		}
	}
	return nil
}
