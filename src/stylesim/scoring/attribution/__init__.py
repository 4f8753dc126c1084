"""Attribution: which label's works an image resembles in style, how sure that is, and whether it is none of them."""
