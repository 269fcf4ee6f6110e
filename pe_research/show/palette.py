"""Colours of every figure and page."""

# The hues of Okabe and Ito with a contrast of 3:1 on a white and on a dark page.
PALETTE = (
  ('#4d4d4d', '#c9c9c9'),  # grey
  ('#b37700', '#f0ac22'),  # orange
  ('#2a86bd', '#62bdf0'),  # sky blue
  ('#00835f', '#1fc79a'),  # green
  ('#d04a00', '#ff8146'),  # vermilion
  ('#00518c', '#5c9ff5'),  # blue
  ('#b0508a', '#e79ac5'),  # purple
  ('#7d7400', '#e6da3c'),  # yellow
)
INK = '#1a1b1c'  # replaced by the text colour in a page
