package main

import (
	"fmt"
	"image/color"
	"math"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"

	"github.com/readthrough-go/readthrough/bench/workload"
)

// palette tells series apart for most kinds of colour blindness (Okabe and Ito); the
// first colour is this library's.
var palette = []color.Color{
	color.RGBA{0xd5, 0x5e, 0x00, 0xff}, color.RGBA{0x00, 0x72, 0xb2, 0xff}, color.RGBA{0x56, 0xb4, 0xe9, 0xff},
	color.RGBA{0x00, 0x9e, 0x73, 0xff}, color.RGBA{0xe6, 0x9f, 0x00, 0xff}, color.RGBA{0xcc, 0x79, 0xa7, 0xff},
	color.RGBA{0x80, 0x80, 0x80, 0xff},
}

const (
	chartWidth  = 9 * vg.Inch
	chartHeight = 4 * vg.Inch
)

// drawChart writes a chart as an SVG.
func drawChart(c workload.Chart, file string) error {
	plot.DefaultFont = font.Font{Typeface: "Liberation", Variant: "Sans"}
	p := plot.New()
	p.Title.Text, p.X.Label.Text, p.Y.Label.Text = c.Title, c.XLabel, c.YLabel
	p.BackgroundColor = color.White // a page may be dark
	p.Legend.Top, p.Legend.Padding = true, vg.Points(2)
	if c.LogY {
		p.Y.Tick.Marker = decades{}
	}
	p.Add(horizontal())
	add := addPoints
	if len(c.Groups) > 0 {
		add = addBars
		p.Legend.Left = true // above one goroutine, where bars are low
	}
	for i := range c.Series {
		if err := add(p, c, i); err != nil {
			return err
		}
	}
	p.Y.Max += 0.45 * (p.Y.Max - p.Y.Min) // room for the legend above the data
	return p.Save(chartWidth, chartHeight, file)
}

func horizontal() *plotter.Grid {
	g := plotter.NewGrid()
	g.Vertical.Width = 0
	g.Horizontal.Color = color.Gray{0xe0}
	return g
}

// height is where a value stands on the axis. A logarithmic axis is made here, and
// not by gonum's LogScale, because bars need a foot to stand on: it is at a third.
func height(c workload.Chart, v float64) float64 {
	if !c.LogY {
		return v
	}
	return max(0, math.Log10(3*v))
}

// decades are the ticks of a logarithmic axis: powers of ten.
type decades struct{}

// Ticks implements plot.Ticker.
func (decades) Ticks(_, most float64) []plot.Tick {
	var ticks []plot.Tick
	for power := 1.0; math.Log10(3*power) < most; power *= 10 {
		ticks = append(ticks, plot.Tick{Value: math.Log10(3 * power), Label: fmt.Sprintf("%.0f", power)})
	}
	return ticks
}

// addBars adds the bars of one series, beside those of the others.
func addBars(p *plot.Plot, c workload.Chart, i int) error {
	width := chartWidth * 0.75 / vg.Length(len(c.Groups)*len(c.Series))
	heights := make(plotter.Values, len(c.Series[i].Y))
	for j, y := range c.Series[i].Y {
		heights[j] = height(c, y)
	}
	bars, err := plotter.NewBarChart(heights, width)
	if err != nil {
		return err
	}
	bars.Color, bars.LineStyle.Width = palette[i%len(palette)], 0
	bars.Offset = width * (vg.Length(i) - vg.Length(len(c.Series)-1)/2)
	p.Add(bars)
	p.Legend.Add(c.Series[i].Name, bars)
	p.NominalX(c.Groups...)
	p.X.Min, p.X.Max = -0.5, float64(len(c.Groups))-0.5
	return nil
}

// addPoints adds the points of one series.
func addPoints(p *plot.Plot, c workload.Chart, i int) error {
	points := make(plotter.XYs, len(c.Series[i].X))
	for j := range points {
		points[j] = plotter.XY{X: c.Series[i].X[j], Y: height(c, c.Series[i].Y[j])}
	}
	dots, err := plotter.NewScatter(points)
	if err != nil {
		return err
	}
	dots.GlyphStyle = draw.GlyphStyle{Color: palette[i%len(palette)], Radius: vg.Points(1.5), Shape: draw.CircleGlyph{}}
	p.Add(dots)
	p.Legend.Add(c.Series[i].Name, dots)
	return nil
}
