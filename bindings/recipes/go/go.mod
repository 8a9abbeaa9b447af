module amptoken

go 1.18
