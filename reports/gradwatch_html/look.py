"""How plots look, in light and in dark: colours, maps, and a plotly template under every plot."""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go

from gradwatch_html.palette import CIVIDIS, COLOURS, DIVERGING, ELEMENTS

CLEAR = "rgba(0,0,0,0)"


def plot_palettes() -> dict[str, Any]:
    """Returns, for light and for dark, the colours and maps as the script uses them."""
    return {
        mode: {
            **{name: pair[i] for name, pair in COLOURS.items()},
            "change": list(DIVERGING[i]),
            "value": list(CIVIDIS),
            "elements": list(ELEMENTS[i]),
            "template": template(i),
        }
        for i, mode in enumerate(("light", "dark"))
    }


def template(mode: int) -> dict[str, Any]:
    """Returns the template of light (0) or dark (1) as plain data that plotly has checked against its schema."""
    colour = {name: pair[mode] for name, pair in COLOURS.items()}
    axis = {
        "gridcolor": colour["grid"],
        "linecolor": colour["line"],
        "showline": False,
        "zeroline": False,
        "fixedrange": True,
        "automargin": False,
        "ticks": "",
        "ticklabelstandoff": 4,
        "tickfont": {"size": 11.5, "color": colour["soft"]},
        "title": {"font": {"size": 12}},
    }
    layout = go.Layout(
        paper_bgcolor=CLEAR,
        plot_bgcolor=CLEAR,
        font={"size": 12, "color": colour["soft"]},
        margin={"t": 8, "r": 14, "b": 28, "l": 54, "pad": 0},
        showlegend=False,
        hovermode="closest",
        hoverdistance=40,
        hoverlabel={
            "bgcolor": colour["ink"],
            "bordercolor": colour["ink"],
            "font": {"color": colour["page"], "size": 12.5},
            "namelength": 0,
        },
        xaxis=axis,
        yaxis=axis,
    )
    return {"layout": layout.to_plotly_json()}
