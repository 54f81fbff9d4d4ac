"""Who may log in, and what they may do: rules on the data of the router's replica."""
