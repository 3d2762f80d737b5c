// Command plot draws what a comparison has found. It is a module of its own, so
// that its library is not one of the plugin's.
package main

import (
	"encoding/json"
	"fmt"
	"image/color"
	"os"
	"slices"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	_ "gonum.org/v1/plot/vg/vgsvg"
)

// report is what the comparison has written.
type report struct {
	Rows []struct {
		Server       string
		Apache       bool
		Microseconds float64
	}
}

func main() {
	if len(os.Args) != 3 {
		fail(fmt.Errorf("usage: plot RESULTS.json PICTURE.svg"))
	}
	text, err := os.ReadFile(os.Args[1])
	if err != nil {
		fail(err)
	}
	var r report
	if err := json.Unmarshal(text, &r); err != nil {
		fail(err)
	}
	if err := draw(&r, os.Args[2]); err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "plot:", err)
	os.Exit(1)
}

// draw makes a bar for each server, and shows what that of Caddy with dpop is made of.
func draw(r *report, file string) error {
	if len(r.Rows) < 2 {
		return fmt.Errorf("too few servers")
	}
	// The first two are Caddy alone, and with one verification.
	alone, verification := r.Rows[0].Microseconds, r.Rows[1].Microseconds-r.Rows[0].Microseconds
	slices.Reverse(r.Rows) // the first is on top
	parts := []struct {
		name   string
		color  color.Color
		values plotter.Values
	}{
		{name: "Caddy alone", color: color.Gray{0x99}},
		{name: "one P-256 verification", color: color.RGBA{0x1f, 0x77, 0xb4, 0xff}},
		{name: "all else of dpop", color: color.RGBA{0xff, 0x7f, 0x0e, 0xff}},
		{name: "Apache with mod_oauth2", color: color.RGBA{0xa0, 0x30, 0x30, 0xff}},
	}
	names := make([]string, len(r.Rows))
	labels := plotter.XYLabels{}
	for i, row := range r.Rows {
		names[i] = row.Server
		shares := [4]float64{0, 0, 0, row.Microseconds}
		if !row.Apache {
			over := max(0, row.Microseconds-alone)
			shares = [4]float64{row.Microseconds - over, min(over, verification), max(0, over-verification), 0}
		}
		for part, share := range shares {
			parts[part].values = append(parts[part].values, share)
		}
		labels.XYs = append(labels.XYs, plotter.XY{X: row.Microseconds, Y: float64(i)})
		labels.Labels = append(labels.Labels, fmt.Sprintf(" %.0f µs", row.Microseconds))
	}

	p := plot.New()
	p.Title.Text = "Processor time of an accepted request"
	p.X.Label.Text = "µs"
	p.X.Min = 0
	p.Legend.Top, p.Legend.XOffs = true, -vg.Centimeter
	p.Legend.TextStyle.Font.Size, p.Legend.Padding = vg.Points(9), vg.Points(2)
	var below *plotter.BarChart
	for _, part := range parts {
		bars, err := plotter.NewBarChart(part.values, vg.Points(18))
		if err != nil {
			return err
		}
		bars.Horizontal, bars.Color, bars.LineStyle.Width = true, part.color, 0
		if below != nil {
			bars.StackOn(below)
		}
		below = bars
		p.Add(bars)
		p.Legend.Add(part.name, bars)
	}
	values, err := plotter.NewLabels(labels)
	if err != nil {
		return err
	}
	for i := range values.TextStyle {
		values.TextStyle[i].YAlign = -0.5
	}
	p.Add(values)
	p.NominalY(names...)
	p.X.Max *= 1.12 // for the longest bar's label
	return p.Save(18*vg.Centimeter, 7*vg.Centimeter, file)
}
