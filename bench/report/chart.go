package main

import (
	"image/color"
	"math"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"

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

// draw writes a chart as an SVG.
func draw(c workload.Chart, file string) error {
	p := plot.New()
	p.Title.Text, p.X.Label.Text, p.Y.Label.Text = c.Title, c.XLabel, c.YLabel
	p.BackgroundColor = color.White // a page may be dark
	p.Legend.Top = true
	if c.LogY {
		p.Y.Scale, p.Y.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: -1}
	}
	p.Add(horizontal())
	add := addPoints
	if len(c.Groups) > 0 {
		add = addBars
	}
	for i := range c.Series {
		if err := add(p, c, i); err != nil {
			return err
		}
	}
	// Room for the legend above the data.
	if c.LogY {
		p.Y.Max *= math.Pow(p.Y.Max/p.Y.Min, 0.35)
	} else {
		p.Y.Min, p.Y.Max = 0, p.Y.Max*1.35
	}
	return p.Save(chartWidth, chartHeight, file)
}

func horizontal() *plotter.Grid {
	g := plotter.NewGrid()
	g.Vertical.Width = 0
	g.Horizontal.Color = color.Gray{0xe0}
	return g
}

// addBars adds the bars of one series, beside those of the others.
func addBars(p *plot.Plot, c workload.Chart, i int) error {
	width := chartWidth * 0.7 / vg.Length(len(c.Groups)*len(c.Series))
	bars, err := plotter.NewBarChart(plotter.Values(c.Series[i].Y), width)
	if err != nil {
		return err
	}
	bars.Color, bars.LineStyle.Width = palette[i%len(palette)], 0
	bars.Offset = width * (vg.Length(i) - vg.Length(len(c.Series)-1)/2)
	p.Add(bars)
	p.Legend.Add(c.Series[i].Name, bars)
	p.NominalX(c.Groups...)
	return nil
}

// addPoints adds the points of one series.
func addPoints(p *plot.Plot, c workload.Chart, i int) error {
	points := make(plotter.XYs, len(c.Series[i].X))
	for j := range points {
		points[j] = plotter.XY{X: c.Series[i].X[j], Y: c.Series[i].Y[j]}
	}
	dots, err := plotter.NewScatter(points)
	if err != nil {
		return err
	}
	dots.Color, dots.Radius = palette[i%len(palette)], vg.Points(1.5)
	p.Add(dots)
	p.Legend.Add(c.Series[i].Name, dots)
	return nil
}
