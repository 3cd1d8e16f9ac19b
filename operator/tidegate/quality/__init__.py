"""How good the answers of a revision are: by labels that come later, and by how they shift. Pure.

`policy` says what is asked, `sample` what is taken in, `accuracy` and `shift` are the statistics,
`report` makes conditions of them. What is kept, and where, is `tidegate.runtime.quality_store`.
"""
