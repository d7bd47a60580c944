package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"drystone.example/drystone/backend/api/schema"
	"drystone.example/drystone/backend/client"
	"drystone.example/drystone/backend/model"
)

// shortHistory is how many lines vm history prints, about, unless a step is given.
const shortHistory = 30

func newVMHistory(a *app) *cobra.Command {
	var last string
	var step time.Duration
	c := &cobra.Command{
		Use: "history VM", Short: "Show what a machine did: of the last hour by the second, up to two years by the hour",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			past, err := parseAge(last)
			if err != nil {
				return err
			}
			seconds := int64(past / time.Second)
			fine := int64(step / time.Second)
			if fine == 0 && !a.json {
				fine = seconds / shortHistory
			}
			return a.with(cmd, func(c *client.Client) error {
				h, err := c.VMHistory(cmd.Context(), args[0], seconds, fine)
				if err != nil {
					return err
				}
				return show(a, h, printHistory)
			})
		},
	}
	c.Flags().StringVar(&last, "last", "1h", "how far back, such as 10m, 24h, 30d or 2y")
	c.Flags().DurationVar(&step, "step", 0, "means of at least so long, such as 10s (default: about 30 lines)")
	return c
}

// parseAge reads an age such as 10m, 24h, 30d or 2y, of a second to two years.
func parseAge(text string) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	for unit, length := range map[string]time.Duration{"d": 24 * time.Hour, "y": 365 * 24 * time.Hour} {
		if number, ok := strings.CutSuffix(text, unit); ok {
			var n int
			n, err = strconv.Atoi(number)
			d = time.Duration(min(max(n, 0), 10000)) * length
		}
	}
	if err != nil || d < time.Second || d > 2*365*24*time.Hour {
		return 0, usagef("%q is not an age; write one as 10m, 24h, 30d or 2y, which is the longest", text)
	}
	return d, nil
}

func printHistory(w io.Writer, h schema.VMHistory) {
	if len(h.Missing) > 0 {
		say(w, "What these nodes know of it is missing, they did not answer: %s\n", strings.Join(h.Missing, ", "))
	}
	say(w, "TIME\tCPU\tMEMORY\tREADS/s\tWRITES/s\tREAD/s\tWRITTEN/s\tREAD TAKES\tWRITE TAKES\n")
	for i, t := range h.T {
		at := func(name string, write func(v float64) string) string {
			if column := h.Series[name]; i < len(column) && column[i] != nil {
				return write(*column[i])
			}
			return "-"
		}
		count := func(v float64) string { return strconv.FormatFloat(v, 'f', 0, 64) }
		bytes := func(v float64) string { return size(model.Bytes(v)) }
		took := func(v float64) string { return fmt.Sprintf("%.2f ms", v*1000) }
		say(w, "%s\n", strings.Join([]string{
			time.UnixMilli(t).Format(time.DateTime),
			at("cpu", func(v float64) string { return fmt.Sprintf("%.0f %%", 100*v) }), at("mem_used", bytes),
			at("r_iops", count), at("w_iops", count), at("r_bps", bytes), at("w_bps", bytes),
			at("r_lat", took), at("w_lat", took),
		}, "\t"))
	}
}
