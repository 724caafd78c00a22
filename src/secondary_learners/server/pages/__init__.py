"""What people browse: a list, a page for each artifact, comparisons. The same served and static."""
